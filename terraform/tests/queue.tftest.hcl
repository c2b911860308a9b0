# The queue and its dead letters, standard and FIFO.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

override_resource {
  target = aws_sqs_queue.orders
  values = { arn = "arn:aws:sqs:eu-central-1:123456789012:orders" }
}
override_resource {
  target = aws_sqs_queue.dead
  values = { arn = "arn:aws:sqs:eu-central-1:123456789012:dead" }
}

run "standard_by_default" {
  assert {
    condition     = [aws_sqs_queue.orders.name, aws_sqs_queue.dead.name] == ["flux", "flux-dead"]
    error_message = "a standard queue's name has no suffix"
  }
  assert {
    condition = alltrue([for queue in [aws_sqs_queue.orders, aws_sqs_queue.dead] :
      queue.fifo_queue == null && queue.content_based_deduplication == null &&
      queue.deduplication_scope == null && queue.fifo_throughput_limit == null
    ])
    error_message = "SQS refuses attributes of FIFO on a standard queue"
  }
  assert {
    condition = alltrue([
      aws_sqs_queue.orders.visibility_timeout_seconds == 30,
      aws_sqs_queue.orders.receive_wait_time_seconds == 20,
      aws_sqs_queue.orders.message_retention_seconds == 1209600,
      aws_sqs_queue.dead.message_retention_seconds == 1209600,
    ])
    error_message = "30 s of visibility, 20 s of long poll, 14 days of retention"
  }
  assert {
    condition = jsondecode(aws_sqs_queue.orders.redrive_policy) == {
      deadLetterTargetArn = "arn:aws:sqs:eu-central-1:123456789012:dead"
      maxReceiveCount     = 100
    }
    error_message = "what is received a hundred times is dead"
  }
  assert {
    condition = jsondecode(aws_sqs_queue_redrive_allow_policy.dead.redrive_allow_policy) == {
      redrivePermission = "byQueue"
      sourceQueueArns   = ["arn:aws:sqs:eu-central-1:123456789012:orders"]
    }
    error_message = "only the queue of orders may have its dead letters there"
  }
}

run "fifo" {
  variables {
    name = "sale"
    fifo = true
  }
  assert {
    condition     = [aws_sqs_queue.orders.name, aws_sqs_queue.dead.name] == ["sale.fifo", "sale-dead.fifo"]
    error_message = "a FIFO queue's name ends in .fifo, and so does that of its dead letters"
  }
  assert {
    condition = alltrue([for queue in [aws_sqs_queue.orders, aws_sqs_queue.dead] :
      queue.fifo_queue && !queue.content_based_deduplication &&
      queue.deduplication_scope == "messageGroup" && queue.fifo_throughput_limit == "perMessageGroupId"
    ])
    error_message = "both queues are FIFO, each group for itself, ids given by the sender"
  }
}

run "names_that_aws_refuses" {
  command = plan
  variables {
    name = "Flux_"
  }
  expect_failures = [var.name]
}
