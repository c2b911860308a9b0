-- Room in the page for the versions of a row that changes with each order.
CREATE TABLE items (
    id text PRIMARY KEY,
    available int NOT NULL CHECK (available >= 0)
) WITH (fillfactor = 10);

CREATE TABLE orders (
    id uuid PRIMARY KEY,
    buyer text NOT NULL,
    item text NOT NULL,
    units int NOT NULL,
    status text NOT NULL,
    placed_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE tickets (
    id int PRIMARY KEY,
    item text NOT NULL,
    order_id uuid
);
CREATE INDEX tickets_free ON tickets (item, id) WHERE order_id IS NULL;

-- One call, one transaction, and the hot row comes last: its lock is kept for the
-- commit alone.
CREATE FUNCTION place_by_count(the_order uuid, the_buyer text, the_item text, n int)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO orders (id, buyer, item, units, status)
        VALUES (the_order, the_buyer, the_item, n, 'held') ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN (SELECT status FROM orders WHERE id = the_order);
    END IF;
    UPDATE items SET available = available - n WHERE id = the_item AND available >= n;
    IF NOT FOUND THEN
        UPDATE orders SET status = 'sold_out' WHERE id = the_order;
        RETURN 'sold_out';
    END IF;
    RETURN 'held';
END $$;

-- Nobody waits for a ticket that another is about to take.
CREATE FUNCTION place_by_ticket(the_order uuid, the_buyer text, the_item text)
RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO orders (id, buyer, item, units, status)
        VALUES (the_order, the_buyer, the_item, 1, 'held') ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
        RETURN (SELECT status FROM orders WHERE id = the_order);
    END IF;
    UPDATE tickets SET order_id = the_order WHERE id = (
        SELECT id FROM tickets WHERE item = the_item AND order_id IS NULL
            ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED);
    IF NOT FOUND THEN
        UPDATE orders SET status = 'sold_out' WHERE id = the_order;
        RETURN 'sold_out';
    END IF;
    RETURN 'held';
END $$;

-- One unit for each order of a pack. When there are fewer left, nothing of it is done:
-- the caller then places them one by one.
CREATE FUNCTION place_pack(the_orders uuid[], the_buyer text, the_item text)
RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    n int;
BEGIN
    INSERT INTO orders (id, buyer, item, units, status)
        SELECT one, the_buyer, the_item, 1, 'held' FROM unnest(the_orders) AS one
        ON CONFLICT (id) DO NOTHING;
    GET DIAGNOSTICS n = ROW_COUNT;
    IF n > 0 THEN
        UPDATE items SET available = available - n WHERE id = the_item AND available >= n;
        IF NOT FOUND THEN
            RAISE 'fewer are left than the pack asks for';
        END IF;
    END IF;
    IF n = cardinality(the_orders) THEN
        RETURN QUERY SELECT 'held' FROM generate_series(1, n);
    ELSE
        RETURN QUERY SELECT status FROM orders WHERE id = ANY (the_orders);
    END IF;
END $$;
