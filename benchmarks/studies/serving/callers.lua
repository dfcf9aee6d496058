-- For wrk: callers that ask for pictures, each with a seed of its own, and count the answers by status.
-- Arguments: the first seed, and how many milliseconds a caller waits before each request.
local prompts = { "a red apple, 3D style", "a car, flat style", "a rose, twemoji style", "a star, noto style" }
local threads = {}

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(arguments)
  seed = tonumber(arguments[1]) + number * 1000000
  pause = tonumber(arguments[2])
  statuses = {}
  for index, prompt in ipairs(prompts) do
    prompts[index] = prompt:gsub(" ", "%%20")
  end
end

function request()
  seed = seed + 1
  return wrk.format("GET", "/v1/picture?format=png&prompt=" .. prompts[seed % #prompts + 1] .. "&seed=" .. seed)
end

function delay()
  return pause
end

function response(status)
  statuses[status] = (statuses[status] or 0) + 1
end

function done(summary, latency)
  local sums = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do
      sums[status] = (sums[status] or 0) + count
    end
  end
  local counts = {}
  for status, count in pairs(sums) do
    table.insert(counts, string.format('"%d": %d', status, count))
  end
  local errors = summary.errors
  io.write(string.format(
    '\n{"seconds": %.6f, "statuses": {%s}, "failed": %d, "median_ms": %.3f, "p99_ms": %.3f}\n',
    summary.duration / 1e6, table.concat(counts, ", "), errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
