# Items, orders and buyers' counts in one table, so that one transaction can
# commit them together.

resource "aws_dynamodb_table" "flux" {
  #checkov:skip=CKV_AWS_119:a key of one's own is a choice, by kms_key_arn; AWS encrypts with its own otherwise
  name = var.name

  # A sale is a minute of storm after weeks of calm.
  billing_mode                = "PAY_PER_REQUEST"
  deletion_protection_enabled = var.deletion_protection

  hash_key  = "pk"
  range_key = "sk"

  attribute {
    name = "pk"
    type = "S"
  }
  attribute {
    name = "sk"
    type = "S"
  }
  attribute {
    name = "due"
    type = "N"
  }
  attribute {
    name = "ends"
    type = "N"
  }

  # Holds in order of their ends. Only rows with `due` are in it, so it is as
  # large as what is held at the moment.
  global_secondary_index {
    name               = "due"
    projection_type    = "INCLUDE"
    non_key_attributes = ["takes"]

    key_schema {
      attribute_name = "due"
      key_type       = "HASH"
    }
    key_schema {
      attribute_name = "ends"
      key_type       = "RANGE"
    }
  }

  # Rejected orders are forgotten after a day, or as long as the workers are told to keep
  # them; buyers' live holds and pauses a week after they ended.
  ttl {
    enabled        = true
    attribute_name = "forgotten"
  }

  # What changes, for a day, with no write unit more: the change feed is read from it, and
  # whatever else you follow it with.
  stream_enabled   = true
  stream_view_type = "NEW_AND_OLD_IMAGES"

  point_in_time_recovery {
    enabled = true
  }

  # Without this block AWS encrypts with a key that it owns. With `enabled` and
  # no ARN it would be one in this account that each call is billed for.
  dynamic "server_side_encryption" {
    for_each = var.kms_key_arn[*]
    content {
      enabled     = true
      kms_key_arn = server_side_encryption.value
    }
  }
}
