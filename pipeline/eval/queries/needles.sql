-- How many pictures of each level were read rightly, by which method, in how many looks?
SELECT
    category,
    method,
    count(value)::INTEGER AS scored,
    coalesce(sum(value), 0)::INTEGER AS "right",
    (count(*) - count(value))::INTEGER AS unscored,
    avg(zooms) AS zooms
FROM scores
WHERE benchmark = 'needles'
GROUP BY category, method
