# What each half of the server may do, and no more: attach one policy to the
# role the half runs as. A transaction needs the permissions of its parts.

locals {
  table   = aws_dynamodb_table.flux.arn
  indexes = "${aws_dynamodb_table.flux.arn}/index/due"
  orders  = [for queue in aws_sqs_queue.orders : queue.arn]
  dead    = [for queue in aws_sqs_queue.dead : queue.arn]

  # Both services use the key in the name of whoever calls them, and only so.
  key = [for arn in var.kms_key_arn[*] : {
    Sid      = "UseTheKeyOfTableAndQueues"
    Effect   = "Allow"
    Action   = ["kms:Decrypt", "kms:Encrypt", "kms:GenerateDataKey"]
    Resource = arn
    Condition = {
      StringEquals = {
        "kms:ViaService" = [for service in ["dynamodb", "sqs"] :
        "${service}.${data.aws_region.current.region}.amazonaws.com"]
      }
    }
  }]

  api = concat([
    {
      Sid      = "SendOrdersAndSeeHowManyWait"
      Effect   = "Allow"
      Action   = ["sqs:GetQueueAttributes", "sqs:GetQueueUrl", "sqs:SendMessage"]
      Resource = local.orders
    },
    {
      Sid    = "ListAndRedrive"
      Effect = "Allow"
      Action = [
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
        "sqs:ReceiveMessage",
      ]
      Resource = local.dead
    },
    {
      Sid    = "ReadConfirmAndPutItemsOnSale"
      Effect = "Allow"
      Action = [
        "dynamodb:BatchGetItem",
        "dynamodb:BatchWriteItem",
        "dynamodb:ConditionCheckItem",
        "dynamodb:DescribeTable",
        "dynamodb:DescribeTimeToLive",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
      ]
      Resource = local.table
    },
    {
      Sid      = "FollowWhatChanges"
      Effect   = "Allow"
      Action   = ["dynamodb:DescribeStream", "dynamodb:GetRecords", "dynamodb:GetShardIterator"]
      Resource = aws_dynamodb_table.flux.stream_arn
    },
    {
      Sid      = "ListHolds"
      Effect   = "Allow"
      Action   = ["dynamodb:Query"]
      Resource = local.indexes
    },
  ], local.key)

  worker = concat([
    {
      Sid    = "TakeOrdersAndSendAgainWhatIsNotDone"
      Effect = "Allow"
      Action = [
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
        "sqs:ReceiveMessage",
        "sqs:SendMessage",
      ]
      Resource = local.orders
    },
    {
      Sid    = "BuryListAndRedrive"
      Effect = "Allow"
      Action = [
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:GetQueueUrl",
        "sqs:ReceiveMessage",
        "sqs:SendMessage",
      ]
      Resource = local.dead
    },
    {
      Sid    = "ClaimAndCommit"
      Effect = "Allow"
      Action = [
        "dynamodb:BatchGetItem",
        "dynamodb:ConditionCheckItem",
        "dynamodb:DescribeTable",
        "dynamodb:DescribeTimeToLive",
        "dynamodb:GetItem",
        "dynamodb:PutItem",
        "dynamodb:Query",
        "dynamodb:UpdateItem",
      ]
      Resource = local.table
    },
    {
      Sid      = "ListHolds"
      Effect   = "Allow"
      Action   = ["dynamodb:Query"]
      Resource = local.indexes
    },
  ], local.key)
}

resource "aws_iam_policy" "api" {
  name        = "${var.name}-api"
  description = "What the api of ${var.name} may do"
  policy      = jsonencode({ Version = "2012-10-17", Statement = local.api })
}

resource "aws_iam_policy" "worker" {
  name        = "${var.name}-worker"
  description = "What the workers of ${var.name} may do"
  policy      = jsonencode({ Version = "2012-10-17", Statement = local.worker })
}
