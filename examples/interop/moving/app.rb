# One class moves from Ruby to Python while its jobs wait in a queue, in the schedule and in the retry set.
#
#     sidekiq -r ./app.rb                       1. Ruby runs everything
#     ruby app.rb                                  pushes: for now, for later, and one that fails in Ruby
#     pillion worker app.py -q python           2. Python can run HardWorker; nobody sends it any yet
#     MOVED=HardWorker sidekiq -r ./app.rb      3. start Ruby anew like this, and whatever pushes
#     MOVED=HardWorker ruby app.rb
#
# And back: start Ruby without MOVED, and leave Python running until queue `python` is empty.

require "sidekiq"

HOME = {"HardWorker" => "default"} # what may move, and its queue in Ruby
MOVED = ENV.fetch("MOVED", "").split(",")

# Client middleware sees a job when it is pushed, and again when a poller takes it out of the schedule or the retry set.
class SendHome
  def call(_worker, job, _queue, _pool)
    if (ruby = HOME[job["class"]])
      job["queue"] = MOVED.include?(job["class"]) ? "python" : ruby
    end
    yield
  end
end

Sidekiq.configure_client { |config| config.client_middleware { |chain| chain.add(SendHome) } }
Sidekiq.configure_server { |config| config.client_middleware { |chain| chain.add(SendHome) } }

class HardWorker
  include Sidekiq::Job

  def perform(name, count) # stays until no HardWorker waits in queue `default`
    raise "#{count} is too much for Ruby" if count > 100
    logger.info("HardWorker in Ruby: #{name} #{count}")
  end
end

class OtherWorker
  include Sidekiq::Job

  def perform(name)
    logger.info("OtherWorker in Ruby: #{name}")
  end
end

if $PROGRAM_NAME == __FILE__
  HardWorker.perform_async("now", 5)
  HardWorker.perform_async("fails", 1000)
  HardWorker.perform_in(300, "later", 7)
  OtherWorker.perform_async("stays")
end
