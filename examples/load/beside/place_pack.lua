-- Sells one unit to each of many orders, once, in one call.
-- KEYS: what is left of the item, the orders. ARGV: buyer, item, time.
local left = tonumber(redis.call('GET', KEYS[1]))
local taken = 0
local answers = {}
for n = 2, #KEYS do
    local status = redis.call('HGET', KEYS[n], 'status')
    if not status then
        status = 'sold_out'
        if left > taken then
            taken = taken + 1
            status = 'held'
        end
        redis.call('HSET', KEYS[n], 'buyer', ARGV[1], 'item', ARGV[2], 'units', 1,
            'status', status, 'placed_at', ARGV[3])
    end
    answers[n - 1] = status
end
if taken > 0 then
    redis.call('DECRBY', KEYS[1], taken)
end
return answers
