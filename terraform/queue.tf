# Accepted orders and commands, and what could not be understood: a queue for each
# partition, and beside it one for its dead letters, so that what is put back is where it
# came from.

locals {
  suffix = var.fifo ? ".fifo" : ""

  # The number behind each name; one queue alone has none.
  partitions = { for number in range(var.partitions) :
  tostring(number) => var.partitions == 1 ? "" : "-${number}" }

  fifo = {
    fifo_queue = var.fifo ? true : null
    # A message carries its own id; two with the same contents are two orders.
    content_based_deduplication = var.fifo ? false : null
    # A group is an item: one busy item must not slow the others.
    deduplication_scope   = var.fifo ? "messageGroup" : null
    fifo_throughput_limit = var.fifo ? "perMessageGroupId" : null
  }

  # Of the two ways to encrypt, exactly one may be set.
  queue_encryption = {
    sqs_managed_sse_enabled           = var.kms_key_arn == null ? true : null
    kms_master_key_id                 = var.kms_key_arn
    kms_data_key_reuse_period_seconds = var.kms_key_arn == null ? null : 300
  }

  days_14 = 14 * 24 * 60 * 60
}

moved {
  from = aws_sqs_queue.orders
  to   = aws_sqs_queue.orders["0"]
}

moved {
  from = aws_sqs_queue.dead
  to   = aws_sqs_queue.dead["0"]
}

moved {
  from = aws_sqs_queue_redrive_allow_policy.dead
  to   = aws_sqs_queue_redrive_allow_policy.dead["0"]
}

resource "aws_sqs_queue" "orders" {
  for_each = local.partitions

  name = "${var.name}${each.value}${local.suffix}"

  fifo_queue                  = local.fifo.fifo_queue
  content_based_deduplication = local.fifo.content_based_deduplication
  deduplication_scope         = local.fifo.deduplication_scope
  fifo_throughput_limit       = local.fifo.fifo_throughput_limit

  # A worker extends it while it is at work; of one that died, the orders come
  # back after this.
  visibility_timeout_seconds = 10
  # The longest there is: a partition without orders costs three requests a minute, however
  # many workers there are.
  receive_wait_time_seconds = 20
  message_retention_seconds = local.days_14

  # A backstop, the most that SQS allows: a worker buries what it can't understand by
  # itself, with the reason. What it can't decide for now must outlive a long outage.
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.dead[each.key].arn
    maxReceiveCount     = 1000
  })

  sqs_managed_sse_enabled           = local.queue_encryption.sqs_managed_sse_enabled
  kms_master_key_id                 = local.queue_encryption.kms_master_key_id
  kms_data_key_reuse_period_seconds = local.queue_encryption.kms_data_key_reuse_period_seconds
}

resource "aws_sqs_queue" "dead" {
  for_each = local.partitions

  name = "${var.name}${each.value}-dead${local.suffix}"

  fifo_queue                  = local.fifo.fifo_queue
  content_based_deduplication = local.fifo.content_based_deduplication
  deduplication_scope         = local.fifo.deduplication_scope
  fifo_throughput_limit       = local.fifo.fifo_throughput_limit

  visibility_timeout_seconds = 30
  message_retention_seconds  = local.days_14

  sqs_managed_sse_enabled           = local.queue_encryption.sqs_managed_sse_enabled
  kms_master_key_id                 = local.queue_encryption.kms_master_key_id
  kms_data_key_reuse_period_seconds = local.queue_encryption.kms_data_key_reuse_period_seconds
}

# On its own, as each queue names the other.
resource "aws_sqs_queue_redrive_allow_policy" "dead" {
  for_each = local.partitions

  queue_url = aws_sqs_queue.dead[each.key].id

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.orders[each.key].arn]
  })
}
