# Sidekiq of the Ruby that is installed. At most once: a job is popped when it is fetched (super_fetch is Sidekiq Pro).
#
# Run as `ruby bench/peers/sidekiq_app.rb enqueue 1000`, with the verbs of driver.py, and by `sidekiq -r` as the app.
# Statistics are on, as always; no middleware beyond its own; the log is at WARN, deprecations of its gems are silent.
# The jobs are those of jobs.py; `Spin` has the rounds that take about as long in Ruby.

require "json"
require "sidekiq"
require "set"

Redis.silence_deprecations = true if Redis.respond_to?(:silence_deprecations=)
Sidekiq.logger.level = Logger::WARN
Sidekiq.configure_server do |config|
  config.redis = {url: ENV.fetch("BENCH_URL")}
  config.options[:poll_interval_average] = 1
end
Sidekiq.configure_client { |config| config.redis = {url: ENV.fetch("BENCH_URL")} }

ROUNDS = 70_000
WARM_UP = 200
BATCH = 1000

def write(text)
  ($line ||= File.open(ENV.fetch("BENCH_MARKS"), File::WRONLY).tap { |file| file.sync = true }).syswrite("#{text}\n")
end

def now_ns = Process.clock_gettime(Process::CLOCK_REALTIME, :nanosecond)

class Base
  include Sidekiq::Worker
  def self.inherited(child)
    super
    child.sidekiq_options(queue: "bench")
  end
end

class Noop < Base
  def perform(_number) = nil
end

class Nap < Base
  def perform(milliseconds) = sleep(milliseconds / 1000.0)
end

class Spin < Base
  def perform(_number)
    total = 0
    each = 0
    while each < ROUNDS
      total += each
      each += 1
    end
  end
end

class Mark < Base
  def perform(tag) = write("#{tag} #{now_ns}")
end

class Stamp < Base
  def perform(pushed) = write(format("lat %.4f", (now_ns - pushed) / 1e6))
end

class StampNap < Base
  def perform(pushed)
    write(format("lat %.4f", (now_ns - pushed) / 1e6))
    sleep 0.01
  end
end

class Flaky < Base
  SEEN = Set.new
  LOCK = Mutex.new
  class << self
    attr_accessor :done
  end
  self.done = 0
  sidekiq_options retry: 3
  sidekiq_retry_in { 1 }

  def perform(number, total)
    first = LOCK.synchronize { SEEN.add?(number) }
    raise "first attempt" if first
    finished = LOCK.synchronize { (Flaky.done += 1) == total }
    write("last #{now_ns}") if finished
  end
end

JOBS = {"noop" => Noop, "nap" => Nap, "spin" => Spin, "mark" => Mark, "stamp" => Stamp, "stamp_nap" => StampNap}.freeze

def many(job, arguments)
  arguments.each_slice(BATCH) { |batch| Sidekiq::Client.push_bulk("class" => job, "args" => batch) }
end

def timed(count)
  write("first #{now_ns}")
  wall = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  cpu = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
  yield
  cpu = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) - cpu
  wall = Process.clock_gettime(Process::CLOCK_MONOTONIC) - wall
  write("last #{now_ns}")
  puts JSON.generate(count: count, seconds: wall, cpu: cpu)
end

def fill(job, count, argument)
  given = Array.new(count.to_i) { |number| [argument.empty? ? number : argument.to_i] }
  many(JOBS.fetch(job, Noop), given.first([WARM_UP, given.size / 10].max))
  Mark.perform_async("first")
  job == "mix" ? mix(given.size) : many(JOBS[job], given)
  Mark.perform_async("last")
end

def mix(count)
  (count / 20).times do
    [[Noop, 12, 0], [Nap, 6, 10], [Spin, 2, 0]].each { |job, times, argument| many(job, [[argument]] * times) }
  end
end

def enqueue(count)
  WARM_UP.times { |number| Noop.perform_async(number) }
  timed(count.to_i) { count.to_i.times { |number| Noop.perform_async(number) } }
end

def bulk(count)
  given = Array.new(count.to_i) { |number| [number] }
  many(Noop, given.first(BATCH))
  timed(given.size) { many(Noop, given) }
end

def stamps(job, count, microseconds)
  5.times { Noop.perform_async(0) }
  gap = microseconds.to_i / 1e6
  due = Process.clock_gettime(Process::CLOCK_MONOTONIC) + 0.05
  count.to_i.times do
    while (left = due - Process.clock_gettime(Process::CLOCK_MONOTONIC)) > 0
      sleep left
    end
    JOBS[job].perform_async(now_ns)
    due += gap
  end
end

def flaky(count)
  many(Noop, Array.new(WARM_UP) { |number| [number] })
  Mark.perform_async("first")
  count.to_i.times { |number| Flaky.perform_async(number, count.to_i) }
end

def probe = Mark.perform_async("ready")

send(*ARGV) if $PROGRAM_NAME == __FILE__
