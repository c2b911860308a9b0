# Least privilege: exact actions on exact resources.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

override_resource {
  target = aws_dynamodb_table.flux
  values = {
    arn        = "arn:aws:dynamodb:eu-central-1:123456789012:table/flux"
    stream_arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/flux/stream/2026-12-01T10:00:00.000"
  }
}

variables {
  kms_key_arn = "arn:aws:kms:eu-central-1:123456789012:key/018f2b6c-1c3e-4b5a-8d7e-9f0a1b2c3d4e"
}

run "nothing_broad" {
  assert {
    condition = alltrue([
      for statement in concat(
        jsondecode(aws_iam_policy.api.policy).Statement,
        jsondecode(aws_iam_policy.worker.policy).Statement,
      ) :
      statement.Effect == "Allow" && !strcontains(jsonencode(statement.Resource), "*") &&
      alltrue([for action in statement.Action : !strcontains(action, "*")])
    ])
    error_message = "no wildcard, in no action and in no resource"
  }
  assert {
    condition = length(setintersection(
      flatten([for policy in [aws_iam_policy.api, aws_iam_policy.worker] :
      [for statement in jsondecode(policy.policy).Statement : statement.Action]]),
      ["dynamodb:Scan", "dynamodb:DeleteItem", "dynamodb:DeleteTable", "sqs:PurgeQueue", "sqs:DeleteQueue"],
    )) == 0
    error_message = "nobody scans, and nobody deletes a row, a table or a queue"
  }
  assert {
    condition = alltrue([for policy in [aws_iam_policy.api, aws_iam_policy.worker] :
      anytrue([for statement in jsondecode(policy.policy).Statement :
        statement.Resource == var.kms_key_arn &&
        try(length(statement.Condition.StringEquals["kms:ViaService"]) == 2, false)
      ])
    ])
    error_message = "the key may be used through the two services alone"
  }
}

run "every_partition" {
  assert {
    condition = alltrue([for policy in [aws_iam_policy.api, aws_iam_policy.worker] :
      toset(flatten([for statement in jsondecode(policy.policy).Statement :
        statement.Resource if startswith(statement.Action[0], "sqs:")
        ])) == toset(concat(
        [for queue in aws_sqs_queue.orders : queue.arn],
        [for queue in aws_sqs_queue.dead : queue.arn],
      ))
    ]) && length(aws_sqs_queue.orders) + length(aws_sqs_queue.dead) == 32
    error_message = "each of 16 queues, and its dead letters"
  }
}

run "each_half_its_own" {
  assert {
    condition = flatten([for statement in jsondecode(aws_iam_policy.api.policy).Statement :
      statement.Action if toset(flatten([statement.Resource])) == toset([for queue in aws_sqs_queue.orders : queue.arn])
    ]) == ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"]
    error_message = "the api sends, and takes nothing out"
  }
  assert {
    condition = [for policy in [aws_iam_policy.api, aws_iam_policy.worker] :
      toset(flatten([for statement in jsondecode(policy.policy).Statement :
        statement.Action if toset(flatten([statement.Resource])) == toset([for queue in aws_sqs_queue.dead : queue.arn])
        ]))] == [for more in [[], ["sqs:SendMessage"]] : toset(concat([
        "sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl", "sqs:ReceiveMessage",
    ], more))]
    error_message = "both list and redrive what is dead, and the worker alone buries"
  }
  assert {
    condition = toset(flatten([for statement in jsondecode(aws_iam_policy.worker.policy).Statement :
      statement.Action if toset(flatten([statement.Resource])) == toset([for queue in aws_sqs_queue.orders : queue.arn])
      ])) == toset([
      "sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:GetQueueAttributes",
      "sqs:GetQueueUrl", "sqs:ReceiveMessage", "sqs:SendMessage",
    ])
    error_message = "the worker receives, extends, deletes and sends again"
  }
  assert {
    condition = alltrue([for policy in [aws_iam_policy.api, aws_iam_policy.worker] :
      flatten([for statement in jsondecode(policy.policy).Statement :
        statement.Action if statement.Resource == "${aws_dynamodb_table.flux.arn}/index/due"
      ]) == ["dynamodb:Query"]
    ])
    error_message = "an index is queried, and nothing else"
  }
  assert {
    condition = [for policy in [aws_iam_policy.api, aws_iam_policy.worker] :
      contains(flatten([for statement in jsondecode(policy.policy).Statement :
    statement.Action]), "dynamodb:BatchWriteItem")] == [true, false]
    error_message = "halls and caps are written in batches, by the api alone"
  }
  assert {
    condition = alltrue([for policy in [aws_iam_policy.api, aws_iam_policy.worker] :
      alltrue([for action in ["dynamodb:DescribeTimeToLive", "dynamodb:UpdateTimeToLive"] :
        contains(flatten([for statement in jsondecode(policy.policy).Statement :
          statement.Action if statement.Resource == aws_dynamodb_table.flux.arn
        ]), action) == (action == "dynamodb:DescribeTimeToLive")
      ])
    ])
    error_message = "both look whether rejected orders are forgotten, and neither changes it"
  }
  assert {
    condition = [for policy in [aws_iam_policy.api, aws_iam_policy.worker] :
      flatten([for statement in jsondecode(policy.policy).Statement :
        statement.Action if statement.Resource == aws_dynamodb_table.flux.stream_arn
    ])] == [["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"], []]
    error_message = "the api follows what changes, and the worker does not"
  }
}
