# AWS takes 6,144 characters of a policy: the longest there can be.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "ap-southeast-1" }
  }
}

override_resource {
  target = aws_sqs_queue.orders
  values = { arn = "arn:aws:sqs:ap-southeast-1:123456789012:a-name-of-thirty-one-characters-23.fifo" }
}
override_resource {
  target = aws_sqs_queue.dead
  values = { arn = "arn:aws:sqs:ap-southeast-1:123456789012:a-name-of-thirty-one-characters-23-dead.fifo" }
}
override_resource {
  target = aws_dynamodb_table.flux
  values = { arn = "arn:aws:dynamodb:ap-southeast-1:123456789012:table/a-name-of-thirty-one-characters" }
}

run "the_most_partitions_of_the_longest_name" {
  variables {
    name        = "a-name-of-thirty-one-characters"
    fifo        = true
    partitions  = 24
    kms_key_arn = "arn:aws:kms:ap-southeast-1:123456789012:key/018f2b6c-1c3e-4b5a-8d7e-9f0a1b2c3d4e"
  }
  assert {
    condition     = length(aws_iam_policy.worker.policy) <= 6144 && length(aws_iam_policy.api.policy) <= 6144
    error_message = "${length(aws_iam_policy.worker.policy)} and ${length(aws_iam_policy.api.policy)} characters"
  }
}
