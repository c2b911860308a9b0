-- What each wrk thread sends: orders of one size, each by another buyer, made
-- beforehand so that the load costs little. Arguments: path, item, and "count"
-- to count the answers by status (dearer; for a check, not a measurement).

local threads = {}

function setup(thread)
  thread:set("first", #threads * 100000000)
  table.insert(threads, thread)
end

function init(args)
  local path, item = args[1], args[2]
  local who = path == "/buy" and "user_id" or "buyer_id"
  local headers = { ["Content-Type"] = "application/json" }
  if path ~= "/buy" then headers["Prefer"] = "wait=1" end
  local function order(n)
    return string.format('{"%s":"buyer-%010d","item_id":"%s"}', who, first + n, item)
  end
  ready, turn, statuses = {}, 0, {}
  local each = path == "/v1/orders/batch" and 100 or 1
  for n = 1, 4096 / each do
    local body = order(n)
    if each > 1 then
      local orders = {}
      for k = 1, each do orders[k] = order(n * each + k) end
      body = '{"orders":[' .. table.concat(orders, ",") .. "]}"
    end
    ready[n] = wrk.format("POST", path, headers, body)
  end
  if args[3] == "count" then
    response = function(status) statuses[status] = (statuses[status] or 0) + 1 end
  end
end

function request()
  turn = turn % #ready + 1
  return ready[turn]
end

function done(summary, latency)
  local counted = {}
  for _, thread in ipairs(threads) do
    for status, n in pairs(thread:get("statuses")) do
      counted[status] = (counted[status] or 0) + n
    end
  end
  local parts = {}
  for status, n in pairs(counted) do
    table.insert(parts, string.format('"%d":%d', status, n))
  end
  local e = summary.errors
  io.write(string.format(
    '\n{"requests":%d,"us":%d,"p50":%d,"p99":%d,"refused":%d,"broken":%d,"statuses":{%s}}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.status, e.connect + e.read + e.write + e.timeout, table.concat(parts, ",")))
end
