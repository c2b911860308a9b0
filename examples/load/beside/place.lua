-- Sells units to one order, once, as the Redis of a flash sale usually does.
-- KEYS: what is left of the item, the order. ARGV: buyer, item, units, time.
local seen = redis.call('HGET', KEYS[2], 'status')
if seen then
    return seen
end
local units = tonumber(ARGV[3])
local status = 'sold_out'
if tonumber(redis.call('GET', KEYS[1])) >= units then
    redis.call('DECRBY', KEYS[1], units)
    status = 'held'
end
redis.call('HSET', KEYS[2], 'buyer', ARGV[1], 'item', ARGV[2], 'units', units,
    'status', status, 'placed_at', ARGV[4])
return status
