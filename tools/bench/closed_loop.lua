-- Sends prepared requests in turn (see closed_loop.py) and counts responses with an unexpected status.
-- Arguments: the file of requests, the expected status, and "feeds_back" if a later request needs the ETag of
-- a response. Each line of the file is one request: method, path, token, body, ETag and key, separated by tabs.

local requests, position, number = {}, 0, 0
local threads = {}
local feeds_back

-- Global, because `done` reads them from another state.
expected, unexpected, first_unexpected = 0, 0, ""

function setup(thread)
    threads[#threads + 1] = thread
end

local function build_headers(prepared)
    local headers = {}
    if prepared.token ~= "" then
        headers["Authorization"] = "Bearer " .. prepared.token
    end
    if prepared.key ~= "" then
        headers["Idempotency-Key"] = prepared.key:gsub("{n}", number)
    end
    if prepared.body ~= "" then
        headers["Content-Type"] = "application/json"
    end
    if prepared.tag ~= "" then
        headers[prepared.method == "GET" and "If-None-Match" or "If-Match"] = prepared.tag
    end
    return headers
end

local function take_next()
    if feeds_back then
        return table.remove(requests, 1)
    end
    position = position % #requests + 1
    return requests[position]
end

local function build_request()
    local prepared = take_next()
    number = number + 1
    local body = prepared.body ~= "" and prepared.body:gsub("{n}", number) or nil
    return wrk.format(prepared.method, prepared.path, build_headers(prepared), body)
end

local function find_etag(headers)
    for name, value in pairs(headers) do
        if name:lower() == "etag" then
            return value
        end
    end
end

local by_id = {}

local function handle_response(status, headers, body)
    if status ~= expected then
        unexpected = unexpected + 1
        if unexpected == 1 then
            first_unexpected = status .. " " .. body:sub(1, 200)
        end
    end
    if feeds_back then
        local id = status == expected and body:match('"id":%s*"([%x-]+)"')
        local prepared = id and by_id[id]
        if prepared then
            prepared.tag = find_etag(headers)
            requests[#requests + 1] = prepared
        end
    end
end

function init(arguments)
    expected, feeds_back = tonumber(arguments[2]), arguments[3] == "feeds_back"
    for line in io.lines(arguments[1]) do
        local method, path, token, body, tag, key = line:match("^(.-)\t(.-)\t(.-)\t(.-)\t(.-)\t(.*)$")
        local prepared = { method = method, path = path, token = token, body = body, tag = tag, key = key }
        requests[#requests + 1] = prepared
        by_id[path:match("([%x-]+)$") or ""] = prepared
    end
    request = build_request
    -- Handling every response takes CPU time on the core of PostgreSQL. If no ETag is needed and the expected
    -- status is 200, the errors that wrk counts itself are enough.
    if expected ~= 200 or feeds_back then
        response = handle_response
    end
end

function done(summary)
    -- wrk runs with one thread.
    local thread, errors = threads[1], summary.errors
    local bad, first = thread:get("unexpected"), thread:get("first_unexpected")
    if thread:get("expected") < 400 then
        bad = math.max(bad, errors.status)
    end
    local broken = errors.connect + errors.read + errors.write + errors.timeout
    io.write(string.format("\nmeasured\t%d\t%d\t%d\t%d\t%s\n", summary.requests, summary.duration, bad, broken,
        (first:gsub("%s+", " "))))
end
