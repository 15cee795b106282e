# What `order.py` pushes runs here.
#
#     sidekiq -r ./report.rb -q ruby     in one terminal
#     python order.py                    in another

require "sidekiq"

class MonthlyReport
  include Sidekiq::Job

  def perform(month, options) # a Python dict is a Hash with text as keys; Ruby's keyword arguments do not travel
    logger.info("made the report of #{month} as #{options.fetch("format", "html")}")
  end
end

module Audit
  class Entry
    include Sidekiq::Job

    def perform(what)
      logger.info("noted that somebody #{what}")
    end
  end
end
