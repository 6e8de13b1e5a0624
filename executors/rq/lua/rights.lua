-- Part: refuses, before anything is written, a user who may not call all that this script, or its like, may have to.
-- Redis checks each call by itself, and what a script has written before one is refused stays. From Redis 7.0 on.
local function refuse_unless_allowed(names)
  if not names or not redis.acl_check_cmd then return nil end
  for _, name in ipairs(names) do
    local first = name == 'PUBSUB' and 'NUMSUB' or K_SCRATCH
    if not redis.acl_check_cmd(name, first, K_SCRATCH, K_SCRATCH) then
      return redis.error_reply("NOPERM this user has no permissions to run the '" .. string.lower(name) .. "' command")
    end
  end
  return nil
end

