# The Ruby half of the mixed fleet: `sidekiq -r fleet.rb`. Each run notes its start and its end in the file that
# FLEET_LEDGER names, in the form of tests/crash/ledger.py, one write for each line.

require_relative "jobs"

LEDGER = File.open(ENV.fetch("FLEET_LEDGER"), File::WRONLY | File::APPEND)
LEDGER.sync = true

module Worked
  def perform(milliseconds)
    fact("start")
    sleep(milliseconds / 1000.0)
    fact("end")
  end

  def fact(what)
    LEDGER.syswrite("#{what} #{jid} ruby 0 0 #{$$} #{Process.clock_gettime(Process::CLOCK_BOOTTIME)}\n")
  end
end

class Steady
  include Sidekiq::Worker
  include Worked
end

class OnlyRuby
  include Sidekiq::Worker
  include Worked
end
