# Leases and outcomes. Without them, or while they are away, sales go on, only
# slower: nothing here is backed up.
#
# Two nodes with one shard between them, not a serverless cache: that one is
# always in cluster mode, where a script can't take the leases of several items.

resource "aws_elasticache_subnet_group" "redis" {
  count = var.redis == null ? 0 : 1

  name       = "${var.name}-redis"
  subnet_ids = var.redis.subnet_ids
}

resource "aws_elasticache_replication_group" "redis" {
  #checkov:skip=CKV_AWS_191:a key of one's own is a choice, by kms_key_arn; AWS encrypts with its own otherwise
  count = var.redis == null ? 0 : 1

  replication_group_id = "${var.name}-redis"
  description          = "Leases and outcomes of ${var.name}"
  engine               = "valkey"
  engine_version       = "8.0"
  parameter_group_name = "default.valkey8"
  node_type            = var.redis.node_type
  port                 = 6379

  num_cache_clusters         = 2
  automatic_failover_enabled = true
  multi_az_enabled           = true

  subnet_group_name  = aws_elasticache_subnet_group.redis[0].name
  security_group_ids = var.redis.security_group_ids

  transit_encryption_enabled = true
  transit_encryption_mode    = "required"
  at_rest_encryption_enabled = true
  kms_key_id                 = var.kms_key_arn
  auth_token                 = var.redis_password
  auth_token_update_strategy = "ROTATE"

  snapshot_retention_limit   = 0
  auto_minor_version_upgrade = true
  apply_immediately          = true
}
