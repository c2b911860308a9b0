locals {
  env = merge(
    {
      AWS_REGION      = data.aws_region.current.region
      DYNAMODB_TABLE  = aws_dynamodb_table.flux.name
      FLUX_PARTITIONS = var.partitions
      # Without the numbers of the partitions.
      SQS_QUEUE_URL = join("", [
        trimsuffix(aws_sqs_queue.orders["0"].url, "${local.partitions["0"]}${local.suffix}"),
        local.suffix,
      ])
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

output "stream_arn" {
  description = "The table's stream of changes, for functions and consumers of your own."
  value       = aws_dynamodb_table.flux.stream_arn
}

output "queue_arns" {
  description = "The queues of orders, by partition."
  value       = { for partition, queue in aws_sqs_queue.orders : partition => queue.arn }
}

output "dead_letter_queue_arns" {
  description = "The queues of what was given up, by partition."
  value       = { for partition, queue in aws_sqs_queue.dead : partition => queue.arn }
}
