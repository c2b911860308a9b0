//! The keys of the index of holds: chosen by a secret of the table, so that nobody aims at
//! one; and tables of the older format, which have eight, by the remainder of the id.

use std::collections::{HashMap, HashSet};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use flux_aws::bill::Meter;
use flux_aws::dynamodb::DynamoStore;
use flux_core::OrderId;
use flux_core::seams::{InventoryStore, SeamError};
use uuid::Uuid;

use crate::table::{LATER, apply, claim, client, held, id, new, pool, single, store, table_name};

type Row = HashMap<String, AttributeValue>;

fn key(pk: &str, sk: &str) -> Row {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    Row::from([("pk".to_owned(), text(pk)), ("sk".to_owned(), text(sk))])
}

async fn read(client: &Client, table: &str, key: Row) -> Option<Row> {
    let get = client.get_item().table_name(table).consistent_read(true).set_key(Some(key));
    get.send().await.expect("read").item
}

fn number(row: &Row, name: &str) -> u64 {
    row[name].as_n().expect("a number").parse().expect("a number")
}

/// Gives the format row these attributes and no others.
async fn set_format(client: &Client, table: &str, attributes: &[(&str, u64)]) {
    let mut row = key("flux", "format");
    let number = |n: &u64| AttributeValue::N(n.to_string());
    row.extend(attributes.iter().map(|(name, n)| ((*name).to_owned(), number(n))));
    client.put_item().table_name(table).set_item(Some(row)).send().await.expect("put");
}

/// Holds 90 units under these ids, and the keys of the index that they have.
async fn hold(client: &Client, table: &str, store: &DynamoStore, id: fn(u64) -> u64) -> Vec<u64> {
    store.put_item(&pool("a", 1_000)).await.expect("put");
    let claimed = claim(store, "a").await;
    let ids: Vec<usize> = (0..90).map(|n| id(n) as usize).collect();
    apply(store, &[&claimed], ids.iter().map(|n| new(&held(&single(*n, "a")))).collect()).await;
    let mut keys = Vec::new();
    for n in ids {
        let id = OrderId::from_uuid(Uuid::from_u128(n as u128));
        let row = read(client, table, key(&format!("order {id}"), "order")).await;
        keys.push(number(&row.expect("it is there"), "due"));
    }
    keys
}

async fn finds_all(store: &DynamoStore, mut ids: Vec<OrderId>) {
    let mut due = store.due_holds(LATER, 1_000).await.expect("read").due;
    due.sort_unstable();
    ids.sort_unstable();
    assert_eq!(due, ids);
    let item = store.items(&[crate::table::item("a")]).await.expect("read").remove(0);
    assert_eq!(item.expect("it is there").held, ids.len() as u32);
}

#[tokio::test]
async fn ids_that_were_chosen_to_meet_on_one_key_are_spread_over_all() {
    let (client, meter) = (client().await, Meter::default());
    let mut spreads = Vec::new();
    for _ in 0..2 {
        let table = table_name();
        let maker = store(&client, &table, 1, &meter).await;
        maker.create_table().await.expect("made");
        let keys = hold(&client, &table, &maker, |n| n * 8 * 32).await;
        let met: HashSet<u64> = keys.iter().copied().collect();
        assert!(met.len() > 16 && met.iter().all(|key| *key < 32), "{met:?}");
        // Another process takes number and secret from the table.
        let other = store(&client, &table, 1, &meter).await;
        finds_all(&other, (0..90).map(|n| id(n * 8 * 32)).collect()).await;
        spreads.push(keys);
    }
    assert_ne!(spreads[0], spreads[1], "each table has a secret of its own");
}

#[tokio::test]
async fn a_table_of_the_older_format_goes_on_with_its_eight_keys() {
    let (client, table, meter) = (client().await, table_name(), Meter::default());
    store(&client, &table, 1, &meter).await.create_table().await.expect("made");
    set_format(&client, &table, &[("version", 1)]).await;
    let old = store(&client, &table, 1, &meter).await;
    old.check().await.expect("it is known");
    let keys = hold(&client, &table, &old, |n| n).await;
    assert_eq!(keys, (0..90).map(|n| n % 8).collect::<Vec<u64>>());
    finds_all(&old, (0..90).map(id).collect()).await;
    let format = read(&client, &table, key("flux", "format")).await.expect("it is there");
    assert_eq!((number(&format, "version"), format.len()), (1, 3), "{format:?}");
}

#[tokio::test]
async fn the_number_of_keys_is_the_tables_own() {
    let (client, table, meter) = (client().await, table_name(), Meter::default());
    store(&client, &table, 1, &meter).await.create_table().await.expect("made");
    let mut format = read(&client, &table, key("flux", "format")).await.expect("it is there");
    format.insert("due_keys".to_owned(), AttributeValue::N("3".to_owned()));
    let put = client.put_item().table_name(&table).set_item(Some(format));
    put.send().await.expect("put");
    let three = store(&client, &table, 1, &meter).await;
    let keys: HashSet<u64> = hold(&client, &table, &three, |n| n).await.into_iter().collect();
    assert_eq!(keys, HashSet::from([0, 1, 2]));
    finds_all(&three, (0..90).map(id).collect()).await;
}

#[tokio::test]
async fn a_table_of_a_later_format_or_without_its_secret_is_refused() {
    let (client, table, meter) = (client().await, table_name(), Meter::default());
    store(&client, &table, 1, &meter).await.create_table().await.expect("made");
    for attributes in [&[("version", 9)][..], &[("version", 3)], &[("version", 2), ("due_keys", 5)]]
    {
        set_format(&client, &table, attributes).await;
        let opened = store(&client, &table, 1, &meter).await.check().await;
        assert!(matches!(opened, Err(SeamError::Broken { .. })), "{attributes:?}: {opened:?}");
    }
}
