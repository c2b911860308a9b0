//! The doors of the server: which calls are answered where.

use crate::api::route::Found;
use crate::http::problem::Problem;

/// The way by which a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Door {
    /// The address for everybody.
    Public,
    /// The same, by a connection beyond the limits.
    TurnedAway,
    /// The address for health and metrics.
    Operations,
}

impl Door {
    /// Refuses what is not answered here. Health and metrics are, unless they have an
    /// address of their own.
    pub(crate) fn check(self, found: Option<Found<'_>>, ops_apart: bool) -> Result<(), Problem> {
        let operations = found.is_some_and(|found| found.is_for_operations());
        match self {
            Self::TurnedAway if ops_apart || !operations => Err(Problem::too_many_connections()),
            Self::Public if ops_apart && operations => {
                Err(Problem::not_found("this is answered at the address of --ops-listen"))
            }
            Self::Operations if !operations => {
                Err(Problem::not_found("this address answers /healthz, /readyz and /metrics"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::route;

    #[test]
    fn health_is_answered_at_one_door_and_orders_at_another() {
        use Door::{Operations, Public, TurnedAway};
        let status = |door: Door, path: &str, ops_apart| {
            door.check(route::find(path), ops_apart).err().map(|problem| problem.status().as_u16())
        };
        for (door, ops_apart, health, orders) in [
            (Public, false, None, None),
            (Public, true, Some(404), None),
            (TurnedAway, false, None, Some(503)),
            (TurnedAway, true, Some(503), Some(503)),
            (Operations, true, None, Some(404)),
        ] {
            for path in ["/healthz", "/readyz", "/metrics"] {
                assert_eq!(status(door, path, ops_apart), health, "{door:?} {path}");
            }
            for path in ["/v1/orders", "/", "/nowhere"] {
                let orders = if path == "/nowhere" && door == Public { None } else { orders };
                assert_eq!(status(door, path, ops_apart), orders, "{door:?} {path}");
            }
        }
    }
}
