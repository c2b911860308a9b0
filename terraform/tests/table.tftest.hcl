# The table and its index, as the store expects them, and who has the key.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

run "keys_and_index" {
  assert {
    condition     = [aws_dynamodb_table.flux.hash_key, aws_dynamodb_table.flux.range_key] == ["pk", "sk"]
    error_message = "the table's keys are pk and sk"
  }
  assert {
    condition = { for each in aws_dynamodb_table.flux.attribute : each.name => each.type } == {
      pk = "S", sk = "S", due = "N", ends = "N"
    }
    error_message = "pk and sk are strings, due and ends are numbers"
  }
  assert {
    condition = alltrue([for index in aws_dynamodb_table.flux.global_secondary_index :
      index.name == "due" && index.projection_type == "INCLUDE" &&
      tolist(index.non_key_attributes) == tolist(["takes"]) &&
      [for key in index.key_schema : "${key.attribute_name} ${key.key_type}"] == ["due HASH", "ends RANGE"]
    ]) && length(aws_dynamodb_table.flux.global_secondary_index) == 1
    error_message = "one index, due: by due and ends, with takes"
  }
  assert {
    condition = alltrue([
      aws_dynamodb_table.flux.billing_mode == "PAY_PER_REQUEST",
      aws_dynamodb_table.flux.deletion_protection_enabled,
      aws_dynamodb_table.flux.point_in_time_recovery[0].enabled,
    ])
    error_message = "on demand, protected, recoverable"
  }
  assert {
    condition = [for ttl in aws_dynamodb_table.flux.ttl : "${ttl.attribute_name} ${ttl.enabled}"] == [
      "forgotten true"
    ]
    error_message = "rejected orders are forgotten"
  }
  assert {
    condition = alltrue([
      aws_dynamodb_table.flux.stream_enabled,
      aws_dynamodb_table.flux.stream_view_type == "NEW_AND_OLD_IMAGES",
    ])
    error_message = "what changes is in the stream, as it was and as it is"
  }
}

run "encrypted_by_aws" {
  assert {
    condition     = length(aws_dynamodb_table.flux.server_side_encryption) == 0
    error_message = "the key that costs nothing is the one that is not asked for"
  }
  assert {
    condition = alltrue([for queue in concat(values(aws_sqs_queue.orders), values(aws_sqs_queue.dead)) :
      queue.sqs_managed_sse_enabled && queue.kms_master_key_id == null
    ])
    error_message = "queues are encrypted"
  }
}

run "encrypted_with_a_key_of_ones_own" {
  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/018f2b6c-1c3e-4b5a-8d7e-9f0a1b2c3d4e"
  }
  assert {
    condition     = aws_dynamodb_table.flux.server_side_encryption[0].kms_key_arn == var.kms_key_arn
    error_message = "the table has the key"
  }
  assert {
    condition = alltrue([for queue in concat(values(aws_sqs_queue.orders), values(aws_sqs_queue.dead)) :
      queue.sqs_managed_sse_enabled == null && queue.kms_master_key_id == var.kms_key_arn
    ])
    error_message = "the queues have the key, and no second kind of encryption"
  }
}

run "an_alias_is_no_key" {
  command = plan
  variables {
    kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:alias/flux"
  }
  expect_failures = [var.kms_key_arn]
}
