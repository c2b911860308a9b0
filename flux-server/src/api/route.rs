//! The route of a request: its method and path, nothing else.

use http::Method;

/// The calls of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    /// Place an order.
    PlaceOrder,
    /// Place many orders.
    PlaceBatch,
    /// List orders.
    ListOrders,
    /// Read one order.
    GetOrder,
    /// Pay an order.
    ConfirmOrder,
    /// Give an order back.
    ReleaseOrder,
    /// Take a paid order back.
    CancelOrder,
    /// Tell that an order's money was returned.
    RefundOrder,
    /// Put an item on sale.
    PutItem,
    /// List items.
    ListItems,
    /// Read one item.
    GetItem,
    /// Read a hall's seats.
    GetSeats,
    /// Hear of items as they change.
    Events,
    /// Read what changed, each change once.
    Changes,
    /// List those whose cursors are kept.
    Consumers,
    /// Forget one of them.
    ForgetConsumer,
    /// See how webhooks stand.
    Webhooks,
    /// List the messages of one that were given up.
    GivenUp,
    /// Send them again.
    Resend,
    /// Copy the store.
    Backup,
    /// Count the store anew.
    Audit,
    /// List what was given up.
    DeadLetters,
    /// Put back what was given up.
    Redrive,
    /// Move sales that are over into files.
    Archive,
    /// Delete an item that never sold anything, or what is kept of an archived one.
    DeleteItem,
    /// Order one unit, as legacy clients do.
    Buy,
    /// List owners, as legacy clients do.
    Inventory,
    /// Whether the process lives.
    Healthz,
    /// Whether it takes orders.
    Readyz,
    /// Figures for Prometheus.
    Metrics,
    /// This interface, for machines.
    OpenApi,
    /// The live page.
    Page,
    /// Rate and latency for the live page.
    Pulse,
}

impl Route {
    /// Every route there is.
    pub const ALL: [Self; 33] = [
        Self::PlaceOrder,
        Self::PlaceBatch,
        Self::ListOrders,
        Self::GetOrder,
        Self::ConfirmOrder,
        Self::ReleaseOrder,
        Self::CancelOrder,
        Self::RefundOrder,
        Self::PutItem,
        Self::ListItems,
        Self::GetItem,
        Self::GetSeats,
        Self::Events,
        Self::Changes,
        Self::Consumers,
        Self::ForgetConsumer,
        Self::Webhooks,
        Self::GivenUp,
        Self::Resend,
        Self::Backup,
        Self::Audit,
        Self::DeadLetters,
        Self::Redrive,
        Self::Archive,
        Self::DeleteItem,
        Self::Buy,
        Self::Inventory,
        Self::Healthz,
        Self::Readyz,
        Self::Metrics,
        Self::OpenApi,
        Self::Page,
        Self::Pulse,
    ];

    /// Method and path template, as in `openapi.json`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PlaceOrder => "POST /v1/orders",
            Self::PlaceBatch => "POST /v1/orders/batch",
            Self::ListOrders => "GET /v1/orders",
            Self::GetOrder => "GET /v1/orders/{order_id}",
            Self::ConfirmOrder => "POST /v1/orders/{order_id}/confirm",
            Self::ReleaseOrder => "POST /v1/orders/{order_id}/release",
            Self::CancelOrder => "POST /v1/orders/{order_id}/cancel",
            Self::RefundOrder => "POST /v1/orders/{order_id}/refunded",
            Self::PutItem => "PUT /v1/items/{item_id}",
            Self::ListItems => "GET /v1/items",
            Self::GetItem => "GET /v1/items/{item_id}",
            Self::GetSeats => "GET /v1/items/{item_id}/seats",
            Self::Events => "GET /v1/events",
            Self::Changes => "GET /v1/changes",
            Self::Consumers => "GET /v1/changes/consumers",
            Self::ForgetConsumer => "DELETE /v1/changes/consumers/{name}",
            Self::Webhooks => "GET /v1/webhooks",
            Self::GivenUp => "GET /v1/webhooks/{name}/given-up",
            Self::Resend => "POST /v1/webhooks/{name}/resend",
            Self::Backup => "GET /v1/backup",
            Self::Audit => "GET /v1/audit",
            Self::DeadLetters => "GET /v1/dead-letters",
            Self::Redrive => "POST /v1/dead-letters/redrive",
            Self::Archive => "POST /v1/archives",
            Self::DeleteItem => "DELETE /v1/items/{item_id}",
            Self::Buy => "POST /buy",
            Self::Inventory => "GET /inventory",
            Self::Healthz => "GET /healthz",
            Self::Readyz => "GET /readyz",
            Self::Metrics => "GET /metrics",
            Self::OpenApi => "GET /openapi.json",
            Self::Page => "GET /",
            Self::Pulse => "GET /pulse",
        }
    }

    /// Whether browsers of any origin may call it.
    #[must_use]
    pub const fn is_legacy(self) -> bool {
        matches!(self, Self::Buy | Self::Inventory)
    }

    /// Whether it is about the process and not about a sale: health and metrics.
    #[must_use]
    pub const fn is_for_operations(self) -> bool {
        matches!(self, Self::Healthz | Self::Readyz | Self::Metrics)
    }

    /// Whether caches may answer it for a second: how much is left is asked by the crowd.
    #[must_use]
    pub const fn is_for_caches(self) -> bool {
        matches!(self, Self::ListItems | Self::GetItem | Self::GetSeats)
    }

    fn answers(self, method: &Method) -> bool {
        let own = self.name().split(' ').next().unwrap_or_default();
        method.as_str() == own || (method == Method::HEAD && own == "GET")
    }
}

/// A path of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'p> {
    /// The calls this path has, by method.
    pub calls: &'static [Route],
    /// The id in the path, still percent-encoded.
    pub id: &'p str,
}

impl Found<'_> {
    /// The call for `method`. `HEAD` is answered wherever `GET` is.
    #[must_use]
    pub fn call(&self, method: &Method) -> Option<Route> {
        self.calls.iter().copied().find(|route| route.answers(method))
    }

    /// Whether it is a path of health and metrics.
    #[must_use]
    pub fn is_for_operations(&self) -> bool {
        self.calls.iter().any(|route| route.is_for_operations())
    }

    /// The methods this path has, for `Allow`.
    #[must_use]
    pub fn allowed(&self) -> String {
        let mut methods = Vec::new();
        for route in self.calls {
            match route.name().split(' ').next() {
                Some("GET") => methods.extend(["GET", "HEAD"]),
                Some(method) => methods.push(method),
                None => {}
            }
        }
        if self.calls.iter().any(|route| route.is_legacy()) {
            methods.push("OPTIONS");
        }
        methods.join(", ")
    }
}

/// Whether no cache may keep an answer at this path, unless its route
/// [says otherwise](Route::is_for_caches).
#[must_use]
pub fn is_private(path: &str) -> bool {
    path == "/v1" || path.starts_with("/v1/") || matches!(path, "/buy" | "/inventory")
}

/// Finds a path, which is as it came: percent-encoded, without the query.
#[must_use]
pub fn find(path: &str) -> Option<Found<'_>> {
    use Route::*;
    let mut segments = path.strip_prefix('/')?.splitn(5, '/');
    let at = [(); 5].map(|()| segments.next());
    let (calls, id): (&[Route], _) = match at {
        [Some("v1"), Some("orders"), None, ..] => (&[PlaceOrder, ListOrders], ""),
        [Some("v1"), Some("orders"), Some("batch"), None, ..] => (&[PlaceBatch], ""),
        [Some("v1"), Some("orders"), Some(id), None, ..] => (&[GetOrder], id),
        [Some("v1"), Some("orders"), Some(id), Some("confirm"), None] => (&[ConfirmOrder], id),
        [Some("v1"), Some("orders"), Some(id), Some("release"), None] => (&[ReleaseOrder], id),
        [Some("v1"), Some("orders"), Some(id), Some("cancel"), None] => (&[CancelOrder], id),
        [Some("v1"), Some("orders"), Some(id), Some("refunded"), None] => (&[RefundOrder], id),
        [Some("v1"), Some("items"), None, ..] => (&[ListItems], ""),
        [Some("v1"), Some("items"), Some(id), None, ..] => (&[GetItem, PutItem, DeleteItem], id),
        [Some("v1"), Some("items"), Some(id), Some("seats"), None] => (&[GetSeats], id),
        [Some("v1"), Some("events"), None, ..] => (&[Events], ""),
        [Some("v1"), Some("changes"), None, ..] => (&[Changes], ""),
        [Some("v1"), Some("changes"), Some("consumers"), None, ..] => (&[Consumers], ""),
        [Some("v1"), Some("changes"), Some("consumers"), Some(name), None] => {
            (&[ForgetConsumer], name)
        }
        [Some("v1"), Some("webhooks"), None, ..] => (&[Webhooks], ""),
        [Some("v1"), Some("webhooks"), Some(name), Some("given-up"), None] => (&[GivenUp], name),
        [Some("v1"), Some("webhooks"), Some(name), Some("resend"), None] => (&[Resend], name),
        [Some("v1"), Some("backup"), None, ..] => (&[Backup], ""),
        [Some("v1"), Some("audit"), None, ..] => (&[Audit], ""),
        [Some("v1"), Some("dead-letters"), None, ..] => (&[DeadLetters], ""),
        [Some("v1"), Some("dead-letters"), Some("redrive"), None, ..] => (&[Redrive], ""),
        [Some("v1"), Some("archives"), None, ..] => (&[Archive], ""),
        [Some("buy"), None, ..] => (&[Buy], ""),
        [Some("inventory"), None, ..] => (&[Inventory], ""),
        [Some("healthz"), None, ..] => (&[Healthz], ""),
        [Some("readyz"), None, ..] => (&[Readyz], ""),
        [Some("metrics"), None, ..] => (&[Metrics], ""),
        [Some("openapi.json"), None, ..] => (&[OpenApi], ""),
        [Some("pulse"), None, ..] => (&[Pulse], ""),
        [Some(""), None, ..] => (&[Page], ""),
        _ => return None,
    };
    Some(Found { calls, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_is_found_by_its_own_name() {
        for route in Route::ALL {
            let (method, path) = route.name().split_once(' ').expect("method and path");
            let found = find(path).expect(path);
            let method = Method::from_bytes(method.as_bytes()).expect("a method");
            assert_eq!(found.call(&method), Some(route));
            assert!(found.allowed().contains(method.as_str()));
        }
    }

    #[test]
    fn what_is_near_a_path_is_not_it() {
        for path in [
            "",
            "*",
            "/v1",
            "/v1/",
            "/v1/order",
            "/buy/",
            "//",
            "/v1/orders/a/b",
            "/v1/items/a/seats/b",
        ] {
            assert_eq!(find(path), None, "{path}");
        }
        assert_eq!(find("/v1/items/").map(|found| found.id), Some(""));
    }

    #[test]
    fn head_goes_where_get_goes_and_nothing_else_does() {
        let items = find("/v1/items/a").expect("a path");
        assert_eq!(items.call(&Method::HEAD), Some(Route::GetItem));
        assert_eq!(items.call(&Method::PATCH), None);
        assert_eq!(items.allowed(), "GET, HEAD, PUT, DELETE");
        assert_eq!(find("/buy").expect("a path").allowed(), "POST, OPTIONS");
    }
}
