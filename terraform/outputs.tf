locals {
  env = merge(
    {
      AWS_REGION     = data.aws_region.current.region
      DYNAMODB_TABLE = aws_dynamodb_table.flux.name
      SQS_QUEUE_URL  = aws_sqs_queue.orders.url
    },
    # TLS needs the URL: host and port alone are plain.
    { for cache in aws_elasticache_replication_group.redis :
    "REDIS_URL" => "rediss://:${var.redis_password}@${cache.primary_endpoint_address}:${cache.port}" },
  )
}

output "env" {
  description = "The server's .env: terraform output -raw env > .env"
  value       = join("", [for name, value in local.env : "${name}=${value}\n"])
  # The cache's password is in it.
  sensitive = true
}

output "api_policy_arn" {
  description = "Policy for the role of `flux-server api`."
  value       = aws_iam_policy.api.arn
}

output "worker_policy_arn" {
  description = "Policy for the role of `flux-server worker`; `flux-server serve` needs both."
  value       = aws_iam_policy.worker.arn
}

output "table_arn" {
  description = "The table, for backups and policies of your own."
  value       = aws_dynamodb_table.flux.arn
}

output "queue_arn" {
  description = "The queue of orders."
  value       = aws_sqs_queue.orders.arn
}

output "dead_letter_queue_arn" {
  description = "The queue of what was given up."
  value       = aws_sqs_queue.dead.arn
}
