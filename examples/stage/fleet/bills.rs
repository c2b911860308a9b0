//! The bill of a fleet, from each process's `/metrics`.

use std::collections::HashMap;
use std::io;

use flux_aws::bill::Bill;

use super::Process;
use crate::Client;

/// The bill of each process as it was last asked for.
#[derive(Debug, Default)]
pub struct Bills(HashMap<u32, Bill>);

impl Bills {
    /// Asks a process; the last time before it ends is what counts. Being
    /// asked costs a process a few calls itself, so seldom is better.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn ask(&mut self, process: &Process) -> io::Result<()> {
        let reply = Client::new(process.address()).get("/metrics", None).await?;
        self.0.insert(process.pid(), read(&String::from_utf8_lossy(&reply.body)));
        Ok(())
    }

    /// All bills together.
    #[must_use]
    pub fn sum(&self) -> Bill {
        self.0.values().fold(Bill::default(), |sum, bill| sum + bill)
    }
}

/// The bill within Prometheus' text.
fn read(text: &str) -> Bill {
    let mut bill = Bill::default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Ok(value) = value.parse::<f64>() else { continue };
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        match name {
            "flux_calls_total" => {
                let label = |name: &str| {
                    let (_, rest) = labels.split_once(&format!("{name}=\""))?;
                    Some(rest.split_once('"')?.0.to_owned())
                };
                if let (Some(service), Some(operation)) = (label("service"), label("operation")) {
                    bill.calls.insert((service, operation), value as u64);
                }
            }
            "flux_sqs_requests_total" => bill.sqs_requests = value as u64,
            "flux_redis_commands_total" => bill.redis_commands = value as u64,
            "flux_dynamodb_read_units" => bill.read_units = value,
            "flux_dynamodb_write_units" => bill.write_units = value,
            _ => {}
        }
    }
    bill
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bill_is_read_from_the_metrics() {
        let bill = read(
            "# TYPE flux_calls_total counter\n\
             flux_calls_total{service=\"sqs\",operation=\"ReceiveMessage\"} 7\n\
             flux_calls_total 0\n\
             flux_sqs_requests_total 9\n\
             flux_dynamodb_write_units 12.5\n",
        );
        let call = ("sqs".to_owned(), "ReceiveMessage".to_owned());
        assert_eq!(bill.calls.into_iter().collect::<Vec<_>>(), [(call, 7)]);
        assert_eq!((bill.sqs_requests, bill.write_units), (9, 12.5));
    }
}
