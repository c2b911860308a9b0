variable "name" {
  description = "Name of the table and the queues, and what all other names begin with."
  type        = string
  default     = "flux"

  validation {
    # The shortest limit is the cache's: 40 characters, its suffix included.
    condition     = can(regex("^[a-z][a-z0-9-]{2,30}$", var.name)) && !can(regex("--|-$", var.name))
    error_message = "name must be 3 to 31 lower-case letters, digits and single hyphens, beginning with a letter."
  }
}

variable "partitions" {
  description = "Queues that orders are spread over by their items, and that workers share out; 1 is a queue without a number behind its name. Fixed once there are orders: another number takes the queues away, with what is in them."
  type        = number
  default     = 16

  validation {
    # A policy has to name them all.
    condition     = var.partitions >= 1 && var.partitions <= 24 && floor(var.partitions) == var.partitions
    error_message = "partitions must be a whole number, 1 to 24."
  }
}

variable "fifo" {
  description = "FIFO queues instead of standard ones: orders for an item are decided in the order they were sent in, at a higher price."
  type        = bool
  default     = false
}

variable "deletion_protection" {
  description = "Refuse to delete the table."
  type        = bool
  default     = true
}

variable "kms_key_arn" {
  description = "ARN of a key of your own to encrypt table, queues and cache with; null for the keys that AWS owns, which cost nothing."
  type        = string
  default     = null

  validation {
    condition     = var.kms_key_arn == null || can(regex("^arn:[a-z-]+:kms:[a-z0-9-]+:[0-9]{12}:key/[A-Za-z0-9-]+$", var.kms_key_arn))
    error_message = "kms_key_arn must be the ARN of a key: arn:aws:kms:REGION:ACCOUNT:key/ID (policies can't name an alias)."
  }
}

variable "alarm_topic_arn" {
  description = "ARN of the SNS topic that alarms go to; null to see them in CloudWatch alone."
  type        = string
  default     = null

  validation {
    condition     = var.alarm_topic_arn == null || can(regex("^arn:[a-z-]+:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]+$", var.alarm_topic_arn))
    error_message = "alarm_topic_arn must be the ARN of a topic: arn:aws:sns:REGION:ACCOUNT:NAME."
  }
}

variable "oldest_order_seconds_max" {
  description = "Age in seconds of the oldest order in the queue that raises an alarm."
  type        = number
  default     = 60

  validation {
    condition     = var.oldest_order_seconds_max >= 1 && floor(var.oldest_order_seconds_max) == var.oldest_order_seconds_max
    error_message = "oldest_order_seconds_max must be a whole number of seconds, 1 or more."
  }
}

variable "redis" {
  description = <<-TEXT
    A Valkey cache for leases and outcomes; null for none, or for one of your own.
    subnet_ids: at least two, in different zones. security_group_ids: which let the
    api and the workers in at port 6379. node_type: of its two nodes.
  TEXT
  type = object({
    subnet_ids         = list(string)
    security_group_ids = list(string)
    node_type          = optional(string, "cache.t4g.micro")
  })
  default = null

  validation {
    condition     = var.redis == null || length(distinct(try(var.redis.subnet_ids, []))) >= 2
    error_message = "redis.subnet_ids must name at least two subnets, in different zones."
  }
  validation {
    condition     = var.redis == null || length(try(var.redis.security_group_ids, [])) >= 1
    error_message = "redis.security_group_ids must name at least one security group."
  }
  validation {
    condition     = var.redis == null || can(regex("^cache\\.[a-z0-9]+\\.[a-z0-9]+$", var.redis.node_type))
    error_message = "redis.node_type must be like cache.t4g.micro."
  }
}

variable "redis_password" {
  description = "What clients of the cache must bring: 16 to 128 letters and digits (openssl rand -hex 32). It is kept in the state."
  type        = string
  default     = null
  sensitive   = true

  validation {
    condition     = var.redis_password == null || can(regex("^[A-Za-z0-9]{16,128}$", var.redis_password))
    error_message = "redis_password must be 16 to 128 letters and digits."
  }
  validation {
    condition     = (var.redis == null) == (var.redis_password == null)
    error_message = "redis and redis_password go together: give both or neither."
  }
}
