# Evaluates Ruby for the tests: one line in, a JSON array of code and its `args`; one line out, its value or its error.

require_relative "jobs"
require "sidekiq/api"

answers = $stdout.dup
answers.sync = true
$stdout.reopen($stderr) # where Sidekiq's logger may say what it likes

$stdin.each_line do |line|
  code, args = Sidekiq.load_json(line)
  answer = begin
    {value: eval(code)}
  rescue Exception => error
    {error: "#{error.class}: #{error.message} (#{error.backtrace.first})"}
  end
  answers.puts(Sidekiq.dump_json(answer))
end
