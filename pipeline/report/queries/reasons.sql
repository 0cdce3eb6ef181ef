-- Why were rows rejected?
SELECT stage, reason, count(*) AS rows
FROM rejections
GROUP BY stage, reason
ORDER BY rows DESC, stage, reason;
