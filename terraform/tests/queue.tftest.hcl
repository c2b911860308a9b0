# The queues and their dead letters, standard and FIFO, sixteen and one.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

run "sixteen_standard_queues" {
  assert {
    condition = [
      [for queue in aws_sqs_queue.orders : queue.name], [for queue in aws_sqs_queue.dead : queue.name],
      ] == [
      [for key in keys(aws_sqs_queue.orders) : "flux-${key}"], [for key in keys(aws_sqs_queue.dead) : "flux-${key}-dead"],
    ] && toset(keys(aws_sqs_queue.orders)) == toset([for number in range(16) : tostring(number)])
    error_message = "a number behind each name, from 0 to 15"
  }
  assert {
    condition = alltrue([for queue in concat(values(aws_sqs_queue.orders), values(aws_sqs_queue.dead)) :
      queue.fifo_queue == null && queue.content_based_deduplication == null &&
      queue.deduplication_scope == null && queue.fifo_throughput_limit == null
    ])
    error_message = "SQS refuses attributes of FIFO on a standard queue"
  }
  assert {
    condition = alltrue(concat(
      [for queue in aws_sqs_queue.orders :
        queue.visibility_timeout_seconds == 10 && queue.receive_wait_time_seconds == 20 &&
      queue.message_retention_seconds == 1209600],
      [for queue in aws_sqs_queue.dead : queue.message_retention_seconds == 1209600],
    ))
    error_message = "10 s of visibility, 20 s of long poll, 14 days of retention"
  }
  assert {
    condition = alltrue([for key, queue in aws_sqs_queue.orders :
      jsondecode(queue.redrive_policy) == {
        deadLetterTargetArn = aws_sqs_queue.dead[key].arn
        maxReceiveCount     = 1000
      }
    ])
    error_message = "what is received a thousand times is dead, beside its own partition"
  }
  assert {
    condition = alltrue([for key, policy in aws_sqs_queue_redrive_allow_policy.dead :
      policy.queue_url == aws_sqs_queue.dead[key].id &&
      jsondecode(policy.redrive_allow_policy) == {
        redrivePermission = "byQueue"
        sourceQueueArns   = [aws_sqs_queue.orders[key].arn]
      }
    ]) && length(aws_sqs_queue_redrive_allow_policy.dead) == 16
    error_message = "only the queue of the same partition may have its dead letters there"
  }
}

run "one_queue" {
  variables {
    partitions = 1
  }
  assert {
    condition = concat(
      [for queue in aws_sqs_queue.orders : queue.name], [for queue in aws_sqs_queue.dead : queue.name],
    ) == ["flux", "flux-dead"]
    error_message = "one queue alone has no number"
  }
}

run "fifo" {
  variables {
    name       = "sale"
    fifo       = true
    partitions = 2
  }
  assert {
    condition = concat(
      [for queue in aws_sqs_queue.orders : queue.name], [for queue in aws_sqs_queue.dead : queue.name],
    ) == ["sale-0.fifo", "sale-1.fifo", "sale-0-dead.fifo", "sale-1-dead.fifo"]
    error_message = "a FIFO queue's name ends in .fifo, and so does that of its dead letters"
  }
  assert {
    condition = alltrue([for queue in concat(values(aws_sqs_queue.orders), values(aws_sqs_queue.dead)) :
      queue.fifo_queue && !queue.content_based_deduplication &&
      queue.deduplication_scope == "messageGroup" && queue.fifo_throughput_limit == "perMessageGroupId"
    ])
    error_message = "all queues are FIFO, each group for itself, ids given by the sender"
  }
}

run "half_a_partition" {
  command = plan
  variables {
    partitions = 2.5
  }
  expect_failures = [var.partitions]
}

run "names_that_aws_refuses" {
  command = plan
  variables {
    name = "Flux_"
  }
  expect_failures = [var.name]
}
