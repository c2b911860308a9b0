//! The inventory store on DynamoDB.
