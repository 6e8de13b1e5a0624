-- What is known of jobs. Argument: {ids, fields, payload: 1 or 0}; the first field is the status, the second the
-- queue, the third tq_failure. Returns for each job 0 (not there), or {values, due or '', latest result or {}}.
local call = redis.call
local ids, fields, payload = unpack(cmsgpack.unpack(ARGV[1]))
local found = {}
for i, id in ipairs(ids) do
  local values = redis.pcall('HMGET', K_JOB .. id, unpack(fields))
  if values.err or not values[1] then
    found[i] = 0
  else
    local due, latest = '', {}
    if values[1] == S_SCHEDULED then due = call('ZSCORE', K_SCHEDULED .. (values[2] or ''), id) or '' end
    if (values[1] == S_FINISHED and payload == 1) or ((values[1] == S_FAILED or values[1] == S_STOPPED) and not values[3])
    then
      local entry = call('XREVRANGE', K_RESULTS .. id, '+', '-', 'COUNT', 1)[1]
      if entry then latest = entry[2] end
    end
    found[i] = {values, due, latest}
  end
end
return found
