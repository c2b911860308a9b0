# The .env that is printed, with a cache and without, and the cache itself.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
}

override_resource {
  target = aws_sqs_queue.orders
  values = { url = "https://sqs.eu-central-1.amazonaws.com/123456789012/flux-0" }
}
override_resource {
  target = aws_elasticache_replication_group.redis
  values = { primary_endpoint_address = "flux-redis.example.euc1.cache.amazonaws.com" }
}

run "without_redis" {
  assert {
    condition     = output.env == <<-ENV
      AWS_REGION=eu-central-1
      DYNAMODB_TABLE=flux
      FLUX_PARTITIONS=16
      SQS_QUEUE_URL=https://sqs.eu-central-1.amazonaws.com/123456789012/flux
    ENV
    error_message = "region, table and queue"
  }
  assert {
    condition     = length(aws_elasticache_replication_group.redis) + length(aws_elasticache_subnet_group.redis) == 0
    error_message = "no cache unless it is asked for"
  }
}

run "one_queue" {
  variables {
    partitions = 1
  }
  assert {
    condition     = output.env == <<-ENV
      AWS_REGION=eu-central-1
      DYNAMODB_TABLE=flux
      FLUX_PARTITIONS=1
      SQS_QUEUE_URL=${aws_sqs_queue.orders["0"].url}
    ENV
    error_message = "the URL of the queue itself"
  }
}

run "with_redis" {
  variables {
    redis = {
      subnet_ids         = ["subnet-1", "subnet-2"]
      security_group_ids = ["sg-1"]
    }
    redis_password = "0123456789abcdef"
  }
  assert {
    condition     = output.env == <<-ENV
      AWS_REGION=eu-central-1
      DYNAMODB_TABLE=flux
      FLUX_PARTITIONS=16
      REDIS_URL=rediss://:0123456789abcdef@flux-redis.example.euc1.cache.amazonaws.com:6379
      SQS_QUEUE_URL=https://sqs.eu-central-1.amazonaws.com/123456789012/flux
    ENV
    error_message = "region, table and queue, and the cache over TLS with its password"
  }
  assert {
    condition = alltrue([for cache in aws_elasticache_replication_group.redis :
      cache.engine == "valkey" && cache.transit_encryption_enabled && cache.transit_encryption_mode == "required" &&
      tobool(cache.at_rest_encryption_enabled) && cache.num_node_groups == null && cache.num_cache_clusters == 2 &&
      cache.node_type == "cache.t4g.micro"
    ])
    error_message = "two nodes, one shard, encrypted"
  }
}

run "a_cache_without_a_password" {
  command = plan
  variables {
    redis = {
      subnet_ids         = ["subnet-1", "subnet-2"]
      security_group_ids = ["sg-1"]
    }
  }
  expect_failures = [var.redis_password]
}

run "a_cache_in_one_subnet" {
  command = plan
  variables {
    redis = {
      subnet_ids         = ["subnet-1", "subnet-1"]
      security_group_ids = ["sg-1"]
    }
    redis_password = "0123456789abcdef"
  }
  expect_failures = [var.redis]
}
