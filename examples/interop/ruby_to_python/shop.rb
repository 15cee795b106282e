# A Ruby app pushes, Python runs.
#
#     pillion worker jobs.py -q python     in one terminal
#     ruby shop.rb                         in another
#
# A class without `perform` is enough: its name, its queue and its options are what the job needs.

require "sidekiq"

class ResizeImage
  include Sidekiq::Job
  sidekiq_options queue: "python", retry: 5, tags: ["images"]
end

puts ResizeImage.perform_async("cat.png", 320)
puts ResizeImage.perform_in(2, "dog.png", 640) # seconds
puts ResizeImage.set(retry: false).perform_async("cow.png", 160)

# What Rails pushes for `InvoiceJob.perform_later(17, urgent: true)` with `queue_as :python`. In a Rails app that line is
# all you write; this is what its adapter makes of it.

arguments = [17, {"urgent" => true, "_aj_ruby2_keywords" => ["urgent"]}]
puts Sidekiq::Client.push(
  "class" => "ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper",
  "wrapped" => "InvoiceJob",
  "queue" => "python",
  "args" => [{"job_class" => "InvoiceJob", "job_id" => "0bd7b0b9", "queue_name" => "python", "arguments" => arguments}]
)
