# What raises an alarm, and where it goes.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

run "watched" {
  variables {
    partitions               = 1
    fifo                     = true
    oldest_order_seconds_max = 30
    alarm_topic_arn          = "arn:aws:sns:eu-central-1:123456789012:pager"
  }
  assert {
    condition = { for name, alarm in aws_cloudwatch_metric_alarm.flux : name => alarm.metric_name } == {
      oldest-order    = "ApproximateAgeOfOldestMessage"
      dead-letters    = "ApproximateNumberOfMessagesVisible"
      read-throttles  = "ReadThrottleEvents"
      write-throttles = "WriteThrottleEvents"
      index-throttles = "WriteThrottleEvents"
      conflicts       = "TransactionConflict"
    }
    error_message = "age, dead letters, throttles and conflicts"
  }
  assert {
    condition = alltrue([
      aws_cloudwatch_metric_alarm.flux["oldest-order"].dimensions == tomap({ QueueName = "flux.fifo" }),
      aws_cloudwatch_metric_alarm.flux["oldest-order"].threshold == 30,
      aws_cloudwatch_metric_alarm.flux["dead-letters"].dimensions == tomap({ QueueName = "flux-dead.fifo" }),
      aws_cloudwatch_metric_alarm.flux["dead-letters"].threshold == 1,
      aws_cloudwatch_metric_alarm.flux["index-throttles"].dimensions == tomap({ TableName = "flux", GlobalSecondaryIndexName = "due" }),
    ])
    error_message = "each alarm looks at its own queue or table"
  }
  assert {
    condition = alltrue([for alarm in aws_cloudwatch_metric_alarm.flux :
      alarm.treat_missing_data == "notBreaching" && alarm.alarm_actions == toset([var.alarm_topic_arn])
    ])
    error_message = "silence is no alarm, and an alarm goes to the topic"
  }
}

run "every_partition" {
  assert {
    condition = {
      for partition in range(16) : "oldest-order-${partition}" => "flux-${partition}"
      } == {
      for name, alarm in aws_cloudwatch_metric_alarm.flux : name => alarm.dimensions.QueueName
      if alarm.metric_name == "ApproximateAgeOfOldestMessage"
    }
    error_message = "each of 16 queues is watched"
  }
  assert {
    condition = {
      for partition in range(16) : "dead-letters-${partition}" => "flux-${partition}-dead"
      } == {
      for name, alarm in aws_cloudwatch_metric_alarm.flux : name => alarm.dimensions.QueueName
      if alarm.metric_name == "ApproximateNumberOfMessagesVisible"
    }
    error_message = "and so are its dead letters"
  }
}

run "without_a_topic" {
  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.flux : length(alarm.alarm_actions) == 0])
    error_message = "no topic, nobody to tell"
  }
}
