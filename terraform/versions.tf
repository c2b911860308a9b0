# Region and credentials come from the provider that the caller configures, or,
# when this directory is applied by itself, from the environment.

terraform {
  # `terraform test` with its mocks, and checks across variables.
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source = "hashicorp/aws"
      # The one whose schema the check runs against; `key_schema` of an index
      # is not in those before 6.29.
      version = "~> 6.62"
    }
  }
}

data "aws_region" "current" {}
