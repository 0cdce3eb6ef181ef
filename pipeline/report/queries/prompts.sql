-- What does each of these prompts show?
SELECT sample_id, image_id, role, task, width, height, source, license, level_sizes, objects,
       saliency_peak, flat_saliency, segmenter IS NOT NULL AS proposed
FROM prompts
WHERE list_contains(?, sample_id);
