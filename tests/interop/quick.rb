# Lets Ruby's worker look for due jobs all the time, whatever app it runs: RUBYOPT="-r/path/to/quick.rb".

require "sidekiq"

Redis.sadd_returns_boolean = false
Sidekiq.options[:poll_interval_average] = 0.1
