-- Opens ARGV[1] accounts with ARGV[2] minor units each.
for n = 0, ARGV[1] - 1 do
    redis.call('HSET', string.format('account:%012d', n), 'closed', 0, 'overdraft_limit', 0, 'balance', ARGV[2])
end
return 'opened'
