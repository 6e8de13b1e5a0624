-- needs: prelude queue rate_limit result complete
-- Forget jobs that are not running, with all that belongs to them. Argument: {ids}. Returns 1 or 0 for each.
local done = {}
begin_writing()
local function remove(i, id)
  local j = call('HMGET', K_JOB .. id, F_status, F_origin, F_key, F_group_id, F_rate_limit_key)
  local status, queue = j[1], j[2]
  if status and status ~= S_STARTED then
    done[i] = 1
    if queue then
      withdraw(id, queue, status)
      for _, registry in ipairs({K_FINISHED, K_FAILED, K_CANCELED}) do call('ZREM', registry .. queue, id) end
    end
    free_key(j[3], id)
    call('ZREM', K_EXPIRIES, id)
    call('DEL', K_EXECUTIONS .. id, K_SUBSCRIBERS .. id)
    if j[4] then call('SREM', K_GROUP .. j[4], id) end
    if j[5] then release_slot(id, j[5]) end
    local dependents = call('SMEMBERS', K_JOB .. id .. ':dependents')
    call('DEL', K_JOB .. id)
    if #dependents > 0 then release(id) end
    keep(id, 0)
  end
end
for i, id in ipairs(unpack(cmsgpack.unpack(ARGV[1]))) do
  done[i] = 0
  pcall(remove, i, id) -- what one record holds costs that job alone
end
send_news()
return done
