-- Asks prepared requests in turn (see closed_loop.py) and counts answers of another status than is expected.
-- Arguments: the file of requests, the expected status, and "feeds_back" where an answer's tag belongs into a
-- later request. One line is one request: method, path, token, body and tag, separated by tabs.

local requests, at, number = {}, 0, 0
local threads = {}
local feeds_back

-- Global, because `done` reads them from another state.
expected, unexpected, first_unexpected = 0, 0, ""

function setup(thread)
    threads[#threads + 1] = thread
end

local function headers_of(one)
    local headers = { Authorization = "Bearer " .. one.token }
    if one.body ~= "" then
        headers["Content-Type"] = "application/json"
    end
    if one.tag ~= "" then
        headers[one.method == "GET" and "If-None-Match" or "If-Match"] = one.tag
    end
    return headers
end

local function take_next()
    if feeds_back then
        return table.remove(requests, 1)
    end
    at = at % #requests + 1
    return requests[at]
end

local function ask()
    local one = take_next()
    number = number + 1
    local body = one.body ~= "" and one.body:gsub("{n}", number) or nil
    return wrk.format(one.method, one.path, headers_of(one), body)
end

local function tag_of(headers)
    for name, value in pairs(headers) do
        if name:lower() == "etag" then
            return value
        end
    end
end

local by_id = {}

local function note(status, headers, body)
    if status ~= expected then
        unexpected = unexpected + 1
        if unexpected == 1 then
            first_unexpected = status .. " " .. body:sub(1, 200)
        end
    end
    if feeds_back then
        local id = status == expected and body:match('"id":%s*"([%x-]+)"')
        local one = id and by_id[id]
        if one then
            one.tag = tag_of(headers)
            requests[#requests + 1] = one
        end
    end
end

function init(arguments)
    expected, feeds_back = tonumber(arguments[2]), arguments[3] == "feeds_back"
    for line in io.lines(arguments[1]) do
        local method, path, token, body, tag = line:match("^(.-)\t(.-)\t(.-)\t(.-)\t(.*)$")
        local one = { method = method, path = path, token = token, body = body, tag = tag }
        requests[#requests + 1] = one
        by_id[path:match("([%x-]+)$") or ""] = one
    end
    request = ask
    -- To look at every answer costs the core that PostgreSQL works on. Where none is needed and none is to be an
    -- error, what wrk itself counts tells enough.
    if expected ~= 200 or feeds_back then
        response = note
    end
end

function done(summary)
    -- There is one thread.
    local thread, errors = threads[1], summary.errors
    local bad, first = thread:get("unexpected"), thread:get("first_unexpected")
    if thread:get("expected") < 400 then
        bad = math.max(bad, errors.status)
    end
    local broken = errors.connect + errors.read + errors.write + errors.timeout
    io.write(string.format("\nmeasured\t%d\t%d\t%d\t%d\t%s\n", summary.requests, summary.duration, bad, broken,
        (first:gsub("%s+", " "))))
end
