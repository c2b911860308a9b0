# The .env of FIFO queues.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

override_resource {
  target = aws_sqs_queue.orders
  values = { url = "https://sqs.eu-central-1.amazonaws.com/123456789012/flux-0.fifo" }
}

run "fifo" {
  variables {
    fifo = true
  }
  assert {
    condition     = strcontains(output.env, "SQS_QUEUE_URL=https://sqs.eu-central-1.amazonaws.com/123456789012/flux.fifo\n")
    error_message = "the number is taken out, .fifo stays"
  }
}
