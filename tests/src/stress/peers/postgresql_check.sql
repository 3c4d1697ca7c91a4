-- How many rows of history there are, and how many accounts whose balance is not what their history makes it.
SELECT (SELECT count(*) FROM history),
       (SELECT count(*)
        FROM accounts
        LEFT JOIN (SELECT account, sum(amount) AS moved FROM history WHERE NOT declined GROUP BY account) AS sums
            ON account = id
        WHERE balance <> :opening + coalesce(moved, 0));
