# Records what Ruby's Sidekiq 8 says about a Redis that Pillion has filled (tests/api/test_recorded.py):
#
#   ruby record.rb path/to/sidekiq/lib redis-url < questions.json > answers.json
#
# The files of Sidekiq's API run unchanged. Around them are stand-ins, as its gems and Ruby 3.2 are not at hand: for the
# rest of Sidekiq, for redis-client over the gem `redis`, and for `Data.define`. The clock stands at the time given.

require "json"
require "redis"
require "set"
require "time"

lib, url = ARGV
questions = JSON.parse($stdin.read)
NOW = Time.at(Rational(questions["now"].to_s))

class << Time
  def now(*) = NOW
end

module Process
  class << self
    alias_method :real_clock, :clock_gettime
    def clock_gettime(clock, unit = nil)
      (clock == CLOCK_REALTIME && unit == :millisecond) ? (NOW.to_r * 1000).to_i : real_clock(*[clock, unit].compact)
    end
  end
end

unless defined?(Data) && Data.respond_to?(:define)
  Data = Module.new do
    def self.define(*names, &block) = Struct.new(*names, keyword_init: true, &block)
  end
end

class Connection # as redis-client answers with RESP3
  def initialize(redis) = @redis = redis

  def pipelined
    all = []
    recorder = Object.new
    recorder.define_singleton_method(:method_missing) { |name, *words| all << [name, words] }
    recorder.define_singleton_method(:respond_to_missing?) { |*| true }
    yield recorder
    all.map { |name, words| public_send(name, *words) }
  end
  alias_method :multi, :pipelined

  def sscan(key) = @redis.sscan_each(key)

  def zscan(key, match:, count:)
    @redis.zscan_each(key, match: match, count: count) { |member, score| yield member, score }
  end

  def hgetall(key) = @redis.call(["HGETALL", key]).each_slice(2).to_h

  def zrange(*words)
    found = @redis.call(["ZRANGE", *words])
    words.last.to_s.casecmp?("withscores") ? found.each_slice(2).map { |member, score| [member, Float(score)] } : found
  end

  def method_missing(name, *words) = @redis.call([name.to_s, *words.flatten.map(&:to_s)])
  def respond_to_missing?(*) = true
end

module Sidekiq
  CONNECTION = Connection.new(Redis.new(url: ARGV[1]))
  POOL = Object.new.tap { |pool| pool.define_singleton_method(:with) { |&block| block.call(CONNECTION) } }
  LOADER = Object.new.tap { |loader| loader.define_singleton_method(:run_load_hooks) { |*| } }
  CONFIG = Object.new.tap { |config| config.define_singleton_method(:redis_pool) { POOL } }

  def self.redis = yield(CONNECTION)
  def self.load_json(text) = JSON.parse(text)
  def self.dump_json(value) = JSON.generate(value)
  def self.default_configuration = CONFIG
  def self.loader = LOADER
end

$LOADED_FEATURES << "#{lib}/sidekiq.rb" << "#{lib}/sidekiq/redis_connection.rb"
$LOAD_PATH.unshift(lib)
require "sidekiq/api"
require "sidekiq/deploy"

answers = questions["ask"].transform_values { |code| eval(code) }
puts JSON.pretty_generate(answers)
