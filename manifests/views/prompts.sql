-- Which visual prompts were made, of how many objects, in how many levels?
SELECT
    run_id, shard, sample_id, image_id, task, num_objects, level_sizes, saliency_scores
FROM base.prompts
