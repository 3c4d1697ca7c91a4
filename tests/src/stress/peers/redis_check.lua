-- How many entries the histories of ARGV[1] accounts have, and how many accounts, opened with ARGV[2], whose
-- balance is not what their history makes it or whose history has an entry that does not follow from the one before.
local CHUNK = 5000
local entries, wrong = 0, 0
for n = 0, ARGV[1] - 1 do
    local name = string.format('%012d', n)
    local balance, length = tonumber(ARGV[2]), redis.call('LLEN', 'history:' .. name)
    local right = true
    for first = 0, length - 1, CHUNK do
        for _, entry in ipairs(redis.call('LRANGE', 'history:' .. name, first, first + CHUNK - 1)) do
            local amount, after, declined = entry:match('^(%S+) (%S+) (%S+)$')
            if declined == 'false' then balance = balance + amount end
            right = right and tonumber(after) == balance
        end
    end
    entries = entries + length
    if not right or tonumber(redis.call('HGET', 'account:' .. name, 'balance')) ~= balance then wrong = wrong + 1 end
end
return { entries, wrong }
