//! The cost of a sale: every call to SQS, DynamoDB and Redis is counted, by
//! type and by what it is billed as.
//!
//! Capacity units are those that DynamoDB itself reports with each answer. An
//! SQS request is billed for each 64 KiB of payload begun.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::{Add, Sub};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Payload that one billed SQS request carries.
#[cfg(feature = "sqs")]
const SQS_CHUNK_BYTES: usize = 64 * 1024;

/// Counts calls; clones count together. The same figures go to the `metrics`
/// recorder: `flux_calls_total{service, operation}`,
/// `flux_sqs_requests_total`, `flux_redis_commands_total`, and the gauges
/// `flux_dynamodb_read_units` and `flux_dynamodb_write_units` (gauges, because
/// units come in halves; they only grow).
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Mutex<Bill>>);

impl Meter {
    /// The bill so far.
    #[must_use]
    pub fn bill(&self) -> Bill {
        self.lock().clone()
    }

    /// Counts an SQS call with so many bytes of messages, sent or received.
    #[cfg(feature = "sqs")]
    pub(crate) fn sqs(&self, operation: &'static str, payload_bytes: usize) {
        let requests = payload_bytes.div_ceil(SQS_CHUNK_BYTES).max(1) as u64;
        metrics::counter!("flux_calls_total", "service" => "sqs", "operation" => operation)
            .increment(1);
        metrics::counter!("flux_sqs_requests_total").increment(requests);
        let mut bill = self.lock();
        bill.count("sqs", operation, 1);
        bill.sqs_requests += requests;
    }

    /// Counts a DynamoDB call and the units it says it took.
    #[cfg(feature = "dynamodb")]
    pub(crate) fn dynamodb(&self, operation: &'static str, read_units: f64, write_units: f64) {
        metrics::counter!("flux_calls_total", "service" => "dynamodb", "operation" => operation)
            .increment(1);
        self.lock().count("dynamodb", operation, 1);
        self.dynamodb_units(read_units, write_units);
    }

    /// Counts units of a call that was counted.
    #[cfg(feature = "dynamodb")]
    pub(crate) fn dynamodb_units(&self, read_units: f64, write_units: f64) {
        metrics::gauge!("flux_dynamodb_read_units").increment(read_units);
        metrics::gauge!("flux_dynamodb_write_units").increment(write_units);
        let mut bill = self.lock();
        bill.read_units += read_units;
        bill.write_units += write_units;
    }

    /// Counts a Redis command.
    #[cfg(feature = "redis")]
    pub(crate) fn redis(&self, command: &'static str) {
        metrics::counter!("flux_calls_total", "service" => "redis", "operation" => command)
            .increment(1);
        metrics::counter!("flux_redis_commands_total").increment(1);
        let mut bill = self.lock();
        bill.count("redis", command, 1);
        bill.redis_commands += 1;
    }

    fn lock(&self) -> MutexGuard<'_, Bill> {
        // Sums are whole after each statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls and what they are billed as. `after - before` is what was used in
/// between; bills of several processes add up.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Bill {
    /// Calls by service and operation.
    pub calls: BTreeMap<(String, String), u64>,
    /// SQS requests, billed ones.
    pub sqs_requests: u64,
    /// DynamoDB read units.
    pub read_units: f64,
    /// DynamoDB write units.
    pub write_units: f64,
    /// Redis commands.
    pub redis_commands: u64,
}

/// List prices in US dollars for a million of each. Redis is billed by the
/// hour of its machine, not by the command.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prices {
    /// A million SQS requests.
    pub sqs_requests: f64,
    /// A million DynamoDB read units.
    pub read_units: f64,
    /// A million DynamoDB write units.
    pub write_units: f64,
}

impl Prices {
    /// On-demand list prices of us-east-1 (N. Virginia) since November 2024:
    /// SQS standard 0.40, DynamoDB reads 0.125 and writes 0.625.
    pub const US_EAST_1: Self = Self { sqs_requests: 0.40, read_units: 0.125, write_units: 0.625 };
}

impl Bill {
    fn count(&mut self, service: &str, operation: &str, calls: u64) {
        let key = (service.to_owned(), operation.to_owned());
        *self.calls.entry(key).or_default() += calls;
    }

    /// The cost in US dollars.
    #[must_use]
    pub fn dollars(&self, prices: &Prices) -> f64 {
        (self.sqs_requests as f64 * prices.sqs_requests
            + self.read_units * prices.read_units
            + self.write_units * prices.write_units)
            / 1e6
    }

    /// A table of what `orders` orders took, for each thousand of them, and
    /// what a million cost.
    #[must_use]
    pub fn for_orders(&self, orders: u64) -> PerOrders<'_> {
        PerOrders { bill: self, orders: orders.max(1) }
    }
}

impl Add<&Self> for Bill {
    type Output = Self;
    fn add(mut self, other: &Self) -> Self {
        for ((service, operation), calls) in &other.calls {
            self.count(service, operation, *calls);
        }
        self.sqs_requests += other.sqs_requests;
        self.read_units += other.read_units;
        self.write_units += other.write_units;
        self.redis_commands += other.redis_commands;
        self
    }
}

impl Sub<&Self> for Bill {
    type Output = Self;
    /// The part added since `earlier`, a bill of the same meter.
    fn sub(mut self, earlier: &Self) -> Self {
        for (key, calls) in &mut self.calls {
            *calls -= earlier.calls.get(key).copied().unwrap_or(0).min(*calls);
        }
        self.calls.retain(|_, calls| *calls > 0);
        self.sqs_requests = self.sqs_requests.saturating_sub(earlier.sqs_requests);
        self.read_units -= earlier.read_units;
        self.write_units -= earlier.write_units;
        self.redis_commands = self.redis_commands.saturating_sub(earlier.redis_commands);
        self
    }
}

impl fmt::Display for Bill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} SQS requests, {:.1} read and {:.1} write units, {} Redis commands; {:.4} US dollars",
            self.sqs_requests,
            self.read_units,
            self.write_units,
            self.redis_commands,
            self.dollars(&Prices::US_EAST_1)
        )
    }
}

/// See [`Bill::for_orders`].
#[derive(Debug)]
pub struct PerOrders<'b> {
    bill: &'b Bill,
    orders: u64,
}

impl fmt::Display for PerOrders<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bill, orders } = self;
        let per_thousand = |count: f64| count * 1000.0 / *orders as f64;
        writeln!(f, "{:<40} {:>12} {:>16}", "the bill", "in all", "per 1,000 orders")?;
        for ((service, operation), calls) in &bill.calls {
            let name = format!("  {service} {operation}, calls");
            writeln!(f, "{name:<40} {calls:>12} {:>16.2}", per_thousand(*calls as f64))?;
        }
        for (name, count) in [
            ("SQS requests billed", bill.sqs_requests as f64),
            ("DynamoDB read units", bill.read_units),
            ("DynamoDB write units", bill.write_units),
            ("Redis commands", bill.redis_commands as f64),
        ] {
            writeln!(f, "{name:<40} {count:>12.1} {:>16.2}", per_thousand(count))?;
        }
        let dollars = bill.dollars(&Prices::US_EAST_1);
        let million = dollars * 1e6 / *orders as f64;
        write!(f, "a million such orders: {million:.2} US dollars (list prices, us-east-1)")
    }
}

#[cfg(all(test, feature = "sqs", feature = "dynamodb", feature = "redis"))]
mod tests {
    use super::*;

    #[test]
    fn a_bill_adds_up() {
        let meter = Meter::default();
        meter.sqs("SendMessageBatch", 3 * SQS_CHUNK_BYTES);
        meter.sqs("ReceiveMessage", 0);
        let before = meter.bill();
        assert_eq!(before.sqs_requests, 4);
        meter.sqs("ReceiveMessage", SQS_CHUNK_BYTES + 1);
        meter.dynamodb("GetItem", 0.5, 0.0);
        meter.dynamodb("TransactWriteItems", 0.0, 302.0);
        meter.redis("PUBLISH");
        let used = meter.bill() - &before;
        assert_eq!((used.sqs_requests, used.redis_commands), (2, 1));
        assert_eq!((used.read_units, used.write_units), (0.5, 302.0));
        assert_eq!(used.calls.values().sum::<u64>(), 4);
        assert_eq!(before.clone() + &used, meter.bill());
        let dollars = used.dollars(&Prices::US_EAST_1) * 1e6;
        assert!((dollars - (2.0 * 0.4 + 0.5 * 0.125 + 302.0 * 0.625)).abs() < 1e-9);
        let table = used.for_orders(100).to_string();
        assert!(table.contains("3020.00"), "{table}");
    }
}
