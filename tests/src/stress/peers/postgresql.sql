-- The bank's accounts in PostgreSQL, and a deposit or a withdrawal as one call of one function.
--
-- There is room beside each account for its next versions, so that an update needs no new index entry, and no index
-- on the history. The update checks and changes at once: that is one row lock and one record in the log.
CREATE TABLE accounts (
    id bigint PRIMARY KEY,
    closed boolean NOT NULL DEFAULT false,
    overdraft_limit bigint NOT NULL DEFAULT 0,
    balance bigint NOT NULL
) WITH (fillfactor = 50);

CREATE TABLE history (
    account bigint NOT NULL,
    amount bigint NOT NULL,
    balance bigint NOT NULL,
    declined boolean NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

INSERT INTO accounts (id, balance) SELECT id, :opening FROM generate_series(1, :accounts) AS id;

-- The balance afterwards; what is declined leaves it as it was, and a row, as it does in the bank.
CREATE FUNCTION post(of bigint, amount bigint) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    after bigint;
BEGIN
    UPDATE accounts SET balance = accounts.balance + amount
        WHERE id = of AND NOT closed AND accounts.balance + amount >= -overdraft_limit
        RETURNING balance INTO after;
    IF FOUND THEN
        INSERT INTO history VALUES (of, amount, after, false);
    ELSE
        SELECT balance INTO STRICT after FROM accounts WHERE id = of;
        INSERT INTO history VALUES (of, amount, after, true);
    END IF;
    RETURN after;
END $$;

VACUUM ANALYZE accounts;
CHECKPOINT;
