-- What is this run?
SELECT * FROM runs LIMIT 1;
