//! The commits of one call in chains: of which each waits for the one before it.

use std::sync::Arc;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Config};
use flux_core::protocol::Stock;
use flux_core::{ItemId, ItemSpec};

use super::super::stock_row::Head;
use super::*;

const TOKEN: FencingToken = FencingToken(7);

/// A store that is never to call anybody, and knows `striped` to have so many units on each
/// of its stripes.
fn store(striped: &str, available: &[u32]) -> DynamoStore {
    let config = Config::builder().behavior_version(BehaviorVersion::latest()).build();
    let store = DynamoStore::builder().client(&Client::from_conf(config)).table("none").build();
    let spec = ItemSpec::pool(striped, 1_000).expect("a definition");
    let head = Head::of(&spec, String::new(), available.len(), 0);
    let row = |available: &u32| StockRow::new(TOKEN, Stock::Pool { available: *available });
    let stock_rows = available.iter().map(row).collect();
    store.remember(Known { head: Arc::new(head), spec: Arc::new(spec), stock_rows });
    store
}

fn commits(items: &[&str]) -> Vec<Commit> {
    let claim = |name: &str| (ItemId::new(name).expect("a name"), TOKEN);
    let of = |names: &&str| names.split(' ').map(claim).collect();
    items.iter().map(|names| Commit { claims: of(names), writes: Vec::new() }).collect()
}

/// The numbers in each chain, with the stripe that each keeps to.
fn chains(store: &DynamoStore, items: &[&str]) -> Vec<Vec<(usize, Option<usize>)>> {
    let chains = store.chains(&commits(items));
    let turn = |turn: Turn| (turn.number, turn.stripe);
    chains
        .into_iter()
        .filter(|chain| !chain.is_empty())
        .map(|chain| chain.into_iter().map(turn).collect())
        .collect()
}

fn all(numbers: &[usize]) -> Vec<(usize, Option<usize>)> {
    numbers.iter().map(|number| (*number, None)).collect()
}

#[tokio::test]
async fn commits_that_share_an_item_go_one_after_the_other() {
    let store = store("s", &[1]);
    assert_eq!(chains(&store, &["a", "b", "a", "s", "s"]), [all(&[0, 2]), all(&[1]), all(&[3, 4])]);
    // One over two items joins what went apart, all of it.
    assert_eq!(chains(&store, &["a", "b c", "d", "a b", "c"]), [all(&[0, 1, 3, 4]), all(&[2])]);
}

#[tokio::test]
async fn commits_on_one_striped_item_share_its_stripes_out_the_fullest_first() {
    let store = store("s", &[5, 9, 7]);
    let shared = chains(&store, &["s", "s", "s", "s"]);
    assert_eq!(shared, [vec![(0, Some(1)), (3, Some(1))], vec![(1, Some(2))], vec![(2, Some(0))]]);
}

#[tokio::test]
async fn a_striped_item_that_another_item_comes_with_is_not_shared_out() {
    let store = store("s", &[5, 9, 7]);
    assert_eq!(chains(&store, &["s", "s a", "s"]), [all(&[0, 1, 2])]);
}
