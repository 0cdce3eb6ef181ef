-- Of each class of what was tried: how much was kept, and does that bend the data?
SELECT facet, trim(class) AS class, tried, kept, set_aside, rejected, retried, shift
FROM audit
WHERE facet <> 'task'
ORDER BY facet, audit.class
