# The Ruby half of these tests: the jobs of app.py for Ruby's Sidekiq, in a worker (`sidekiq -r jobs.rb`) or a console.
# Every run is noted in the Redis list `ledger`.

require_relative "quick"

if Sidekiq.server?
  class Sidekiq::Scheduled::Poller
    private def initial_wait # would let a fresh worker idle for up to five seconds
    end
  end

  if (pause = ENV["BEAT_PAUSE"]) # a signal is heard with the next beat, five seconds later at most
    Sidekiq::Launcher.send(:remove_const, :BEAT_PAUSE)
    Sidekiq::Launcher.const_set(:BEAT_PAUSE, pause.to_f)
  end
end

module Noted
  def note(*args)
    line = Sidekiq.dump_json({side: "ruby", jid: jid, class: self.class.name, args: args})
    Sidekiq.redis { |redis| redis.rpush("ledger", line) }
  end
end

class HardWorker
  include Sidekiq::Worker
  include Noted

  def perform(name, count)
    note(name, count)
  end
end

class Flaky
  include Sidekiq::Worker
  include Noted
  sidekiq_options retry: 3, backtrace: 5

  def perform(*sides)
    note(*sides)
    raise ArgumentError, "ruby said no" if sides.include?("ruby")
  end
end

class Held
  include Sidekiq::Worker
  include Noted

  def perform(label)
    note(label)
  end
end

class Shared
  include Sidekiq::Worker
  include Noted

  def perform(n)
    Sidekiq.redis do |redis|
      redis.lpush("gate:python", "open")
      redis.blpop("gate:ruby", timeout: 4)
      redis.lpush("gate:ruby", "open")
    end
    note(n)
  end
end
