# What somebody should look at during a sale. A sale is short, so one bad minute
# is enough; between sales there is no data, and nothing wrong.

locals {
  flux_table = { TableName = aws_dynamodb_table.flux.name }
  due_index  = merge(local.flux_table, { GlobalSecondaryIndexName = "due" })

  # Each partition has its own, which says where to look.
  oldest_orders = { for partition, number in local.partitions :
    "oldest-order${number}" => {
      description = "Orders wait too long: are there workers, and do they keep up?"
      namespace   = "AWS/SQS"
      metric      = "ApproximateAgeOfOldestMessage"
      dimensions  = { QueueName = aws_sqs_queue.orders[partition].name }
      statistic   = "Maximum"
      at_least    = var.oldest_order_seconds_max
  } }
  dead_letters = { for partition, number in local.partitions :
    "dead-letters${number}" => {
      description = "Messages were given up; each has its reason with it."
      namespace   = "AWS/SQS"
      metric      = "ApproximateNumberOfMessagesVisible"
      dimensions  = { QueueName = aws_sqs_queue.dead[partition].name }
      statistic   = "Maximum"
      at_least    = 1
  } }

  alarms = merge(local.oldest_orders, local.dead_letters, {
    read-throttles = {
      description = "DynamoDB refuses reads of the table: an item is too hot."
      namespace   = "AWS/DynamoDB"
      metric      = "ReadThrottleEvents"
      dimensions  = local.flux_table
      statistic   = "Sum"
      at_least    = 1
    }
    write-throttles = {
      description = "DynamoDB refuses writes to the table: an item is too hot, its stock should lie in more stripes."
      namespace   = "AWS/DynamoDB"
      metric      = "WriteThrottleEvents"
      dimensions  = local.flux_table
      statistic   = "Sum"
      at_least    = 1
    }
    index-throttles = {
      description = "The index of holds can't follow the table, which will be throttled in turn."
      namespace   = "AWS/DynamoDB"
      metric      = "WriteThrottleEvents"
      dimensions  = local.due_index
      statistic   = "Sum"
      at_least    = 1
    }
    conflicts = {
      # Some are normal, whenever an item passes from worker to worker.
      description = "Workers contend for the same items: is Redis away?"
      namespace   = "AWS/DynamoDB"
      metric      = "TransactionConflict"
      dimensions  = local.flux_table
      statistic   = "Sum"
      at_least    = 300
    }
  })
}

resource "aws_cloudwatch_metric_alarm" "flux" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = each.value.at_least
  period              = 60
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arn[*]
  ok_actions          = var.alarm_topic_arn[*]
}
